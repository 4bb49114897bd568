// Package redisstore keeps a driver.Store in Redis or Valkey: the shared tier of any
// number of processes. It talks to a single server, to a master found by Sentinel, or to
// a Cluster; Redis 6.2 and later, and Valkey.
//
// # What is stored
//
// Every key begins with the configured prefix and carries a time to live.
//
//	PREFIX KEY              an entry: one byte that says how it is packed, then the payload
//	PREFIX tag:TAG          16 bytes, the version; then for each writer in flight 16 bytes,
//	                        its mark, and 8, the end of its lease in ms of the server's clock
//	PREFIX lease:{PREFIX KEY}  the load that holds the lease, and what became of the last load
//	PREFIX lease:#N         what CheckWrites writes, one on each master
//	PREFIX told:NAME:N      what a tracking connection writes to hear of, and deletes at once
//	PREFIX filled           a channel: the keys that were settled while another load waited
//
// A hit is one MGET or, in a Cluster, one pipelined round trip of GETs. Only a tag that is new,
// or that has a writer in flight, costs another round trip for a script. Each script touches
// one key, or in a single server several keys in the same way, so a Cluster needs nothing
// special. Only scripts compare times, and only by the server's own clock.
//
// # Losing state
//
// Redis may lose writes or roll them back: it restarts with an old snapshot, or a replica is
// promoted without the last writes. So the version that Read returns is the stored one combined
// with the identity of the server process that holds it (its run id and replication id). When
// the process changes, every earlier guard is invalid, whatever the stored bytes say. The
// identity is verified for each connection before any reply that came over it is believed.
// Until then Read answers driver.ErrUnproven.
//
// Where a server does not tell its run id, because the account may not use INFO, each new
// connection counts as another incarnation. That is safe, but each connection then begins with
// an empty cache, and processes do not share answers. Open says so in the log.
//
// # Rights
//
// CONFIG is not needed, and no key outside of the prefix is used. With an ACL, this is enough
// for one server:
//
//	user app on >secret ~chainlearn:* &chainlearn:* -@all +get +mget +set +del +unlink +scan
//	     +pttl +pexpire +time +evalsha +eval +publish +subscribe +info
//
// Near answers need +client|tracking as well, a Cluster +cluster|slots and +cluster|shards,
// and Sentinel +role.
//
// # Near answers
//
// Watch has a tracking connection to every master, by client tracking over RESP3 in broadcasting
// mode: the server pushes the name of each tag key that changes, expires or is evicted. Five
// times a second, and whenever a caller waits for it (Prove), each connection proves that it has heard
// of everything: it writes a key of its own, and what it hears of that comes after all that changed
// before. The order is seen to be so before the first proof. So near answers stop within their bound when a master is
// silent, was demoted or has lost its Cluster. All near answers are dropped when a tracking
// connection is lost, a slot moves, the data is flushed, or a server is replaced. A hit changes
// nothing and pushes nothing. Neither does a fill, unless it extends the life of a tag of which
// an eighth has passed.
//
// Where tracking is refused, as some hosted services do, Watch fails and says what is missing.
// A bound (cache.Query.Near) below half a second leaves little time between proofs.
//
// While a process is stopped but keeps its connection, the server buffers what it pushes to it.
// client-output-buffer-limit normal, which is unlimited by default, bounds that.
//
// # Sick servers
//
// No call dials: one goroutine connects, verifies the identity, and verifies it again every
// second. A write on a Store without a connection waits for that goroutine within its own
// context. Every call fails at once while the last attempt has failed. The number of unanswered
// calls is bounded, and a server that accepts but does not answer loses its connection after
// about a second.
//
// Several times a second a process proves that each master takes writes (CheckWrites): one script
// and one read, in one round trip. A server may answer reads and refuse writes: it is out of memory
// and does not evict, it lacks the replicas of min-replicas-to-write, the account may not write, an
// operator paused it. No process serves what such a server holds for longer than a second.
//
// A server demoted to replica without closing its connections, as REPLICAOF by hand does,
// is noticed within that second too; Sentinel and Cluster close or refuse at once. Against
// a master that is cut off from its majority, set min-replicas-to-write: Redis itself does
// not tell clients that it has been replaced.
package redisstore
