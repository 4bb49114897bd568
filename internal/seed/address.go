package seed

import (
	"encoding/base32"
	"encoding/binary"
)

// stellarAddress spells a public key as Stellar does (SEP-23 "strkey"): a version byte, the
// key, and a CRC-16/XModem of both, in base 32. It has 56 characters and begins with G.
func stellarAddress(key [32]byte) string {
	const accountID = 6 << 3
	b := append([]byte{accountID}, key[:]...)
	b = binary.LittleEndian.AppendUint16(b, crc16(b))
	return base32.StdEncoding.EncodeToString(b)
}

func crc16(b []byte) (crc uint16) {
	for _, c := range b {
		crc ^= uint16(c) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}
