// Package testservers starts real Redis, PostgreSQL, PgBouncer and MariaDB servers for tests,
// benchmarks and the soak run, and breaks them on demand: killed, frozen,
// restarted empty, failed over, cut off in the middle of a reply.
//
// Every server comes in two ways. StartX takes a [testing.TB], fails the test
// when the server does not start and closes it when the test ends; where the
// program is not installed it skips the test, and with CI set it fails it.
// OpenX takes a context, returns an error and leaves Close to the caller, for
// programs that have no test at hand.
//
//	func TestOutage(t *testing.T) {
//		redis := testservers.StartRedis(t, testservers.RedisConfig{})
//		store := open(t, redis.Addr())
//		testservers.Must(t, redis.Freeze())
//		…
//	}
//
// Methods that need to wait take a context; one without a deadline is given
// thirty seconds. All methods are safe for concurrent use, except that a server
// must not be used after Close.
//
// A server listens on 127.0.0.1 and keeps its files in a directory of its own
// under [os.TempDir]. It does not outlive the process that started it: Close
// ends it, and on Linux the kernel does when that process is killed. What a
// killed process leaves on disk is removed by a later one.
//
// The package needs a Unix system. Freezing PostgreSQL and the guarantee for
// killed processes need Linux.
package testservers
