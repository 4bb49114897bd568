// Package soak attacks the promises of the cache with real processes, and checks what they
// saw.
//
// A Fleet is a PostgreSQL server, a Redis server and any number of worker processes, each
// a user of the library like any program: a cache on redisstore, writes and a relay of
// outbox/postgres, a table that triggers watch. Between each worker and the servers stands
// a proxy. Run lets them read and write at random while a nemesis freezes, kills, flushes,
// evicts, partitions and fails over, and then holds what every process saw against what the
// database says was committed.
//
// # Time
//
// Every operation is recorded with the moments of its beginning and its end. They come from
// CLOCK_MONOTONIC, which all processes of one machine share and nobody sets: "a ended before
// b began" is a fact, whichever processes a and b ran on.
//
// # What is checked
//
// Each row holds one value, taken from one sequence while the row is locked: values of a row
// grow with each commit, and each names one write. The table history, written in the same
// transactions, tells afterwards which writes were committed, also where nobody lived to
// hear of it. So a history is checked, key by key, in about linear time:
//
//   - A strict read must not return less than what was due when it began. A write is due
//     once it has been acknowledged, and once a read has returned it. Porcupine is asked for
//     the same verdict wherever a history is nothing but strict.
//   - A process reads its own acknowledged writes, always.
//   - A near read must not return less than what was due its bound earlier.
//   - Nothing is read that was never written, was rolled back, or had not begun.
//   - What was acknowledged is in the database, and what failed is not.
//
// Two things are weaker by design, and the checker knows them by what the worker itself
// reports (see docs/consistency.md): a write whose fence could not be set, whose writer died,
// or whose writer knows nothing of the cache is due only after the repair time; and a write
// during which Redis lost its state does not oblige others once it has been read, only once
// it has been acknowledged. Reports count how many writes were strict, so that a run cannot
// pass by excusing everything.
package soak
