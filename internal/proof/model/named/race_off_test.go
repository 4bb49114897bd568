//go:build !race

package named

const raceEnabled = false
