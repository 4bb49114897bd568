//go:build race

package strictnear

// The race detector makes exploring several times slower and has nothing to find
// in it: each exploration is one goroutine. Smaller systems make up for it.
const raceEnabled = true
