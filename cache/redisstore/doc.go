// Package redisstore keeps a driver.Store in Redis or Valkey: the shared tier of any
// number of processes. It talks to a single server, to a master found by Sentinel, or to
// a Cluster; Redis 6.2 and later, and Valkey.
//
// # What is stored
//
// Every key begins with the configured prefix and carries a time to live.
//
//	PREFIX KEY              an entry: one byte that tells how it is packed, then the payload
//	PREFIX tag:TAG          16 bytes, the version; then for each writer in flight 16 bytes,
//	                        its mark, and 8, the end of its lease in ms of the server's clock
//	PREFIX lease:{PREFIX KEY}  who loads the key, and what became of the last load
//	PREFIX filled           a channel: the keys that were settled while somebody waited
//
// A hit is one MGET or, in a Cluster, one pipelined round trip of GETs. Only a tag that is new, or that has a
// writer in flight, costs one call of a script more. Each script touches one key, so a
// Cluster needs nothing special. Scripts are the only place where time is judged, by the
// server's own clock.
//
// # Losing state
//
// Redis may lose or roll back what it was told: a restart with an old snapshot, a replica
// promoted without the last writes. So the version that Read returns is the stored one
// combined with the identity of the server process that holds it (its run id and
// replication id): when the process changes, every guard made before is dead, whatever the
// stored bytes say. The identity is established for each connection before anything that
// came over it is believed; until then Read answers driver.ErrUnproven.
//
// Where a server does not tell its run id, because the account may not use INFO, each new
// connection counts as another incarnation: that is safe, but the cache then begins anew
// with each connection and processes do not share answers. Open says so in the log.
//
// # Rights
//
// CONFIG is not needed, and nothing outside of the prefix is touched. With an ACL, this is
// enough for one server:
//
//	user app on >secret ~chainlearn:* &chainlearn:* -@all +get +mget +set +del +unlink +scan
//	     +pttl +pexpire +time +evalsha +eval +publish +subscribe +info
//
// Near answers need +client|tracking as well, a Cluster +cluster|slots and +cluster|shards,
// and Sentinel +role.
//
// # Near answers
//
// Watch listens to every master over a connection of its own, by client tracking over RESP3
// in broadcasting mode: the server pushes the name of each tag key that changes, expires or
// is evicted. Five times a second each master is asked to prove that it still serves; the
// reply comes after everything that it pushed before. So near answers stop within their
// bound when a master is silent, was demoted or has lost its Cluster, and all of them are
// dropped when a connection is lost, a slot moves, the data is flushed, or the server is
// another. A hit changes nothing and pushes nothing, and neither does a fill, except when it
// renews the life of a tag of which an eighth has passed.
//
// Where tracking is refused, as some who host Redis do, Watch fails and says what is missing.
// A bound (cache.Query.Near) below half a second leaves little time between proofs.
//
// A process that is stopped but keeps its connection makes the server keep what it has pushed;
// client-output-buffer-limit normal, which is unlimited by default, bounds that.
//
// # Sick servers
//
// No call dials: one goroutine connects, proves the identity and looks again every second.
// A write on a store without a connection waits for that goroutine within its own context;
// every call fails at once while the last attempt has failed. The number of unanswered
// calls is bounded, and a server that accepts but does not answer loses its connection
// after about a second.
//
// A server demoted to replica without closing its connections, as REPLICAOF by hand does,
// is noticed within that second too; Sentinel and Cluster close or refuse at once. Against
// a master that is cut off from its majority, set min-replicas-to-write: Redis itself does
// not tell clients that it has been replaced.
package redisstore
