package soak

import (
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// The same question put to porcupine, which knows nothing of this protocol: is there one order
// of all operations on a key, in keeping with real time, in which each read shows
// what the last write before it left?

// registerInput is an operation on a register. Values grow in the order of commits, which the database fixes.
type registerInput struct {
	write  bool
	value  int64
	absent bool // a write that removes the row, or a read that found nothing
}

type registerState struct {
	value  int64
	absent bool
}

func registerModel(base registerState) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return base },
		Step: func(state, input, _ any) (bool, any) {
			s, in := state.(registerState), input.(registerInput)
			if in.write {
				return in.value > s.value, registerState{in.value, in.absent}
			}
			if in.absent {
				return s.absent, s
			}
			return !s.absent && in.value == s.value, s
		},
		DescribeOperation: func(input, _ any) string { return fmt.Sprint(input) },
	}
}

// linearLimit is what porcupine may take for one key. What it does not decide in time has
// been checked by checkReads.
const linearLimit = 10 * time.Second

// checkLinear asks porcupine, if everything about the key was strict.
func (k *keyCheck) checkLinear() *Violation {
	for _, c := range k.commits[1:] {
		if !c.strict() {
			return nil
		}
	}
	ops := k.operations()
	if len(ops) == 0 {
		return nil
	}
	base := registerState{k.commits[0].Value, k.commits[0].Absent}
	k.figures.Linear++
	if porcupine.CheckOperationsTimeout(registerModel(base), ops, linearLimit) != porcupine.Illegal {
		return nil
	}
	ops = shrink(base, ops)
	var lines []timelineEntry
	for _, op := range ops {
		lines = append(lines, timelineEntry{op.Call, op.Return, describe(op)})
	}
	return &Violation{What: "not linearizable", Key: k.key, at: ops[0].Call, Text: formatLines(lines, ops[0].Call)}
}

func describe(op porcupine.Operation) string {
	in := op.Input.(registerInput)
	verb, what := "read ", fmt.Sprint(in.value)
	if in.write {
		verb = "write"
	}
	if in.absent {
		what = "nothing"
	}
	return fmt.Sprintf("%s %s (worker %d)", verb, what, op.ClientId)
}

// operations are the writes and, of all strict reads that show the same write, the one that
// ended first and the one that began last: where these two fit, all between fit
// (Gibbons and Korach, Testing Shared Memories, 1997). A read that found nothing is taken
// to show the write that checkReads has found for it.
func (k *keyCheck) operations() []porcupine.Operation {
	type pair struct{ first, last *read }
	pairs := make([]pair, len(k.commits))
	reads := k.reads[k.key]
	for i := range reads {
		r := &reads[i]
		if r.Kind == kindNear {
			continue
		}
		at := k.index[r.Value]
		if r.Value == 0 {
			at = k.index[k.notFoundAs[i].Value]
		}
		p := &pairs[at]
		if p.first == nil || r.End < p.first.End {
			p.first = r
		}
		if p.last == nil || r.Begin > p.last.Begin {
			p.last = r
		}
	}
	var ops []porcupine.Operation
	for i, c := range k.commits {
		if i > 0 {
			end := c.End
			if c.Outcome != acknowledged {
				end = never // not acknowledged, so it may have happened at any time
			}
			ops = append(ops, porcupine.Operation{ClientId: c.By, Input: registerInput{true, c.Value, c.Absent}, Call: c.Begin, Return: end})
		}
		p := pairs[i]
		if p.first != nil {
			ops = append(ops, readOperation(p.first, c))
		}
		if p.last != nil && p.last != p.first {
			ops = append(ops, readOperation(p.last, c))
		}
	}
	return ops
}

func readOperation(r *read, c *commit) porcupine.Operation {
	return porcupine.Operation{ClientId: r.By, Input: registerInput{false, c.Value, c.Absent}, Call: r.Begin, Return: r.End}
}

// shrink leaves out operations for as long as what is left is still not linearizable. A read
// without its write would never be, so they go together.
func shrink(base registerState, ops []porcupine.Operation) []porcupine.Operation {
	model := registerModel(base)
	illegal := func(ops []porcupine.Operation) bool {
		return porcupine.CheckOperationsTimeout(model, ops, linearLimit) == porcupine.Illegal
	}
	for i := 0; i < len(ops); {
		value := ops[i].Input.(registerInput).value
		write := ops[i].Input.(registerInput).write
		fewer := slices.Clone(ops)
		fewer = slices.DeleteFunc(fewer, func(op porcupine.Operation) bool {
			return op == ops[i] || write && op.Input.(registerInput).value == value
		})
		if illegal(fewer) {
			ops = fewer
		} else {
			i++
		}
	}
	return ops
}
