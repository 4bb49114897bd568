// Package soak attacks the promises of the cache with real processes, and checks what they
// saw.
//
// A Fleet is a PostgreSQL server, a Redis server and any number of worker processes. Each worker
// uses the library like any program: a cache on redisstore, writes and a relay of
// outbox/postgres, a table that triggers watch. A proxy stands between each worker and each
// server. Run lets the workers read and write at random while a nemesis freezes, kills, flushes,
// evicts, partitions and fails over. Then it compares what every process saw with what was
// committed according to the database.
//
// # Time
//
// Every operation is recorded with the moments of its beginning and its end. They come from
// CLOCK_MONOTONIC, which all processes of one machine share and no process can set: "a ended
// before b began" is a fact, whichever processes a and b ran in.
//
// # What is checked
//
// Each row holds one value. Values come from one sequence, taken while the row is locked: they
// grow with each commit, and each names one write. The table history is written in the same
// transactions. After a segment it shows which writes were committed, also those of killed
// writers. So a history is checked, key by key, in about linear time:
//
//   - A strict read must not return less than the lower bound at its beginning. A write raises
//     the bound once it has been acknowledged, and once a read has returned it. Where a history
//     has only strict operations, porcupine must come to the same verdict.
//   - A process reads its own acknowledged writes, always.
//   - A near read must not return less than the lower bound at its beginning less the staleness
//     bound.
//   - No read returns a value that was never written, was rolled back, or had not begun.
//   - Acknowledged writes are in the database, and failed writes are not.
//
// Two things are weaker by design (see docs/consistency.md). The checker knows them from the
// events of the workers:
//
//   - A write raises the bound only after the repair time if its fence could not be set, its
//     writer was killed, or its writer does not use the library.
//   - If Redis lost its state during a write, a read that returned the write does not raise the
//     bound; the acknowledgement does.
//
// Reports count how many writes were strict, so that a run cannot pass by excusing everything.
package soak
