// Package sqldbtest tests package sqldb with real servers, drivers and what sits on them. It is a
// module of its own, so that a program that uses sqldb hears of none of them.
package sqldbtest
