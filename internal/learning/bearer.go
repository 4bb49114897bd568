package learning

import (
	"encoding/binary"
)

// BearerParams name the user and the ID of a token that we signed.
type BearerParams struct {
	User  UserID
	Token string
}

// Bearer is what must be known of the bearer of a token with every request, and the profile,
// which costs nothing more.
// Decision 23.
type Bearer struct {
	StellarAddress string
	Profile        Document
}

// bearerCodec is the cache.Codec of Bearers: the length of the address in two bytes, the address,
// the profile.
type bearerCodec struct{ documentCodec }

func (c bearerCodec) Encode(v Bearer) ([]byte, error) {
	profile, err := c.documentCodec.Encode(v.Profile)
	if err != nil {
		return nil, err
	}
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(v.StellarAddress)+len(profile)), uint16(len(v.StellarAddress)))
	return append(append(b, v.StellarAddress...), profile...), nil
}

func (c bearerCodec) Decode(b []byte) (v Bearer, err error) {
	if len(b) < 2 {
		return v, errInvalidDocument
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; n > len(b) {
		return v, errInvalidDocument
	}
	v.StellarAddress = string(b[:n])
	v.Profile, err = c.documentCodec.Decode(b[n:])
	return v, err
}
