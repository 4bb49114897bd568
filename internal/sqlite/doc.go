// Package sqlite keeps the platform's data in a SQLite file.
//
// The tables, and which change of which row invalidates which answers, stand in migrations
// and in watches.go. Any other program may write to the file meanwhile.
package sqlite
