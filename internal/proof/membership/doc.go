// Package membership looks for an old answer among those whose loads name the tags they depend on.
//
// A category lists its products with their titles. That it lists them is known before the load, by
// the category's tag; which titles it shows is known only while it loads, so the load names the tag
// of each product. Three caches on one Redis, with connections of their own as three processes
// have them, answer many readers at once, while writers change titles and move products between
// categories: by the library, by a session that knows nothing of caches, one by one and all
// together; some transactions are rolled back.
//
// Nothing stands still, so an answer is not compared with what the database says now. Each row has a
// version, and the history says which category each version of a membership had. An answer may
// not show less than what was acknowledged before it was asked for, nor lack a product that has
// been in the category ever since.
//
//	go test ./internal/proof/membership                                       # some seconds
//	go test -v -timeout 2h ./internal/proof/membership -comparisons 10000000 # says each minute how far it is
//
// The soak has such answers too, with processes that are killed and servers that fail.
package membership
