//go:build !race

package strictnear

const raceEnabled = false
