package membership

import (
	"fmt"
	"slices"
	"sync"
)

const (
	products   = 40
	categories = 8
)

// shown is a product in an answer: the versions of its title and of its membership.
type shown struct {
	Product, Title, Membership int
}

// history is what writers did to each product.
type history struct {
	mu       sync.RWMutex
	products [products]past
}

type past struct {
	acknowledged
	// in are the categories that a version of the membership may have: one, unless transactions were
	// rolled back that would have been that version. They are noted before the commit.
	in [][]int
}

func newHistory() *history {
	h := &history{}
	for p := range h.products {
		h.products[p].in = [][]int{{p % categories}}
	}
	return h
}

// moves notes that a transaction gives a product's membership a version. It is about to commit.
func (h *history) moves(product, version, category int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := &h.products[product]
	for len(p.in) <= version {
		p.in = append(p.in, nil)
	}
	p.in[version] = append(p.in[version], category)
}

// retitled notes that a new title, written by the library, has been acknowledged.
func (h *history) retitled(product, version int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := &h.products[product]
	p.title = max(p.title, version)
}

// moved notes that a move, by the library, has been acknowledged. It says something of the two
// categories that it touched, and of no other: a program that knows nothing of caches may have moved
// the product before, and when that shows is not promised.
func (h *history) moved(product int, m move) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := &h.products[product]
	for _, category := range []int{m.from, m.to} {
		p.membership[category] = max(p.membership[category], m.version)
	}
}

// move of a product from one category to another.
type move struct{ version, from, to int }

// acknowledged are the versions of a product that no later answer may be behind: of its title, and
// of its membership in a page of each category.
type acknowledged struct {
	title      int
	membership [categories]int
}

func (h *history) acknowledged() (all [products]acknowledged) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for i, p := range h.products {
		all[i] = p.acknowledged
	}
	return all
}

// check returns what is wrong with the answer for a category that was asked for after before, or "".
func (h *history) check(category int, answer []shown, before [products]acknowledged) string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var listed [products]bool
	for _, s := range answer {
		listed[s.Product] = true
		p, least := &h.products[s.Product], before[s.Product]
		membership := least.membership[category]
		switch {
		case s.Title < least.title:
			return fmt.Sprintf("product %d has title %d, and %d was acknowledged", s.Product, s.Title, least.title)
		case s.Membership < membership:
			return fmt.Sprintf("product %d is listed by its membership %d, and %d was acknowledged", s.Product, s.Membership, membership)
		case s.Membership >= len(p.in) || !slices.Contains(p.in[s.Membership], category):
			return fmt.Sprintf("product %d is listed by its membership %d, which was never in category %d", s.Product, s.Membership, category)
		}
	}
	for product := range h.products {
		since := before[product].membership[category]
		if p := &h.products[product]; !listed[product] && p.stayed(category, since) {
			return fmt.Sprintf("product %d is not listed, and was in category %d since its membership %d", product, category, since)
		}
	}
	return ""
}

// stayed says whether every version since then had the category, and no other.
func (p *past) stayed(category, since int) bool {
	for _, in := range p.in[since:] {
		for _, c := range in {
			if c != category {
				return false
			}
		}
	}
	return true
}
