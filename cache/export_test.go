package cache

// JSONLosses is what Define has against a type without a Codec.
var JSONLosses = jsonLosses

// ForgetNamed makes a query forget which tags its loads named, as it may at any time.
func ForgetNamed[P comparable, V any](d *Cached[P, V]) {
	if table := d.learnt.table.Load(); table != nil {
		table.InvalidateAll()
	}
}
