//go:build race

package model

// The race detector makes exploring about ten times slower; one reader less
// makes up for it. There is nothing concurrent in the model for it to find.
const raceEnabled = true
