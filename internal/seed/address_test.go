package seed

import "testing"

// The address of the zero key, as the Stellar documentation gives it.
func TestStellarAddress(t *testing.T) {
	const want = "GAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAWHF"
	if got := stellarAddress([32]byte{}); got != want {
		t.Errorf("address of the zero key is %s, want %s", got, want)
	}
}
