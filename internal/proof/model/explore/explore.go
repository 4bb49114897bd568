// Package explore visits every state that a small system can reach, for the models whose states are
// few enough to be kept in a map.
package explore

// Result is what an exploration found.
type Result[W comparable] struct {
	States int
	Wrong  map[W][]string // the shortest run to each way to be wrong
}

// All visits every state that can be reached from first, breadth first, so that the runs it returns are
// as short as any. steps emits what may happen next in a state: the state after it, what happens, and the
// way in which that is wrong, or the zero value. With stop it ends when anything is wrong.
func All[S, W comparable](first S, stop bool, steps func(s S, emit func(next S, what string, wrong W))) Result[W] {
	type step struct {
		from int
		what string
	}
	var fine W
	states, taken := []S{first}, []step{{-1, ""}}
	at := map[S]int{first: 0}
	result := Result[W]{Wrong: map[W][]string{}}
	for i := 0; i < len(states) && (!stop || len(result.Wrong) == 0); i++ {
		steps(states[i], func(next S, what string, wrong W) {
			if wrong != fine && result.Wrong[wrong] == nil {
				run := []string{what}
				for s := i; taken[s].from >= 0; s = taken[s].from {
					run = append([]string{taken[s].what}, run...)
				}
				result.Wrong[wrong] = run
			}
			if _, ok := at[next]; !ok {
				at[next] = len(states)
				states, taken = append(states, next), append(taken, step{i, what})
			}
		})
	}
	result.States = len(states)
	return result
}
