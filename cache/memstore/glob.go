package memstore

// matches reports whether key matches pattern, in which * stands for any bytes and ? for
// one; nothing else is special. (path.Match would also read brackets and backslashes.)
//
// It goes back to the last * only: what an earlier one matched can stay, because the last one can
// match the difference. So it takes at most len(pattern) * len(key) steps.
func matches(pattern, key string) bool {
	var p, k int
	star, resume := -1, 0 // the last * in pattern, and where in key to resume behind it
	for k < len(key) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, resume = p, k
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == key[k]):
			p++
			k++
		case star >= 0:
			resume++
			p, k = star+1, resume
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
