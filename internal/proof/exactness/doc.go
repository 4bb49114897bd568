// Package exactness looks for a schema, a query and a write that make a cached answer old.
//
// It draws a schema (columns of random types that rows and lists are found by, keys or none,
// partitions, many-to-many), watches its tables as a user would, defines queries over it with
// their tags, and lets two processes answer while writes of every kind go on: by the library, by
// a session with random settings that knows nothing of caches, row by row, in bulk and by
// TRUNCATE, with the relays off and on, and with the shared tier away and back. After each
// write, once it is acknowledged or delivered, answers of both processes are compared with
// what the database says.
//
//	go test ./internal/proof/exactness                                # some seconds
//	go test -v -timeout 4h ./internal/proof/exactness -comparisons 1000000 # says each minute how far it is
//
// A schema may also be refused by Watch: then it could not have been exact, and that is
// right for the types that have no canonical text.
package exactness
