package gcm

import (
	"crypto/aes"
	"crypto/sha256"
	"encoding/binary"
)

// A second implementation of the format, over crypto/aes and crypto/sha256 alone: HMAC,
// HKDF, CTR and GHASH are written out, as in RFC 2104, RFC 5869 and NIST SP 800-38D. It is
// slow and shares no code with the first.

func theirHMAC(key []byte, parts ...[]byte) []byte {
	var inner, outer [64]byte
	copy(inner[:], key)
	copy(outer[:], key)
	for i := range inner {
		inner[i] ^= 0x36
		outer[i] ^= 0x5c
	}
	h := sha256.New()
	h.Write(inner[:])
	for _, p := range parts {
		h.Write(p)
	}
	sum := h.Sum(nil)
	h = sha256.New()
	h.Write(outer[:])
	h.Write(sum)
	return h.Sum(nil)
}

func theirExpand(key []byte, label string, n int) (out []byte) {
	var t []byte
	for i := byte(1); len(out) < n; i++ {
		t = theirHMAC(key, t, []byte(label), []byte{i})
		out = append(out, t...)
	}
	return out[:n]
}

// theirEpoch returns the index and key of an epoch, counted from 0.
func theirEpoch(secret []byte, label string, epoch int) (index uint32, key []byte) {
	chain := theirExpand(secret, label, 32)
	for {
		b := theirExpand(chain, "weft aes 1 epoch", 68)
		next := binary.BigEndian.Uint32(b[64:])
		chain = b[:32]
		if next == index {
			continue
		}
		index, key = next, b[32:64]
		if epoch == 0 {
			return index, key
		}
		epoch--
	}
}

// times multiplies in GF(2^128).
func times(x, y [16]byte) (z [16]byte) {
	v := y
	for i := range 128 {
		if x[i/8]>>(7-i%8)&1 == 1 {
			for j := range z {
				z[j] ^= v[j]
			}
		}
		low := v[15] & 1
		for j := 15; j > 0; j-- {
			v[j] = v[j]>>1 | v[j-1]<<7
		}
		v[0] >>= 1
		if low == 1 {
			v[0] ^= 0xe1
		}
	}
	return z
}

// theirGCM returns the output of CTR for the input, and the tag over the ciphertext, which
// is the input (open) or the output.
func theirGCM(key, nonce, data, in []byte, open bool) (out, tag []byte) {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	var h, counter, mask [16]byte
	block.Encrypt(h[:], h[:])
	copy(counter[:], nonce)
	counter[15] = 1
	block.Encrypt(mask[:], counter[:])
	for i, b := range in {
		if i%16 == 0 {
			binary.BigEndian.PutUint32(counter[12:], binary.BigEndian.Uint32(counter[12:])+1)
		}
		var pad [16]byte
		block.Encrypt(pad[:], counter[:])
		out = append(out, b^pad[i%16])
	}
	text := out
	if open {
		text = in
	}
	var s [16]byte
	add := func(b []byte) {
		for len(b) > 0 {
			n := min(16, len(b))
			for i := range n {
				s[i] ^= b[i]
			}
			s, b = times(s, h), b[n:]
		}
	}
	add(data)
	add(text)
	add(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(len(data))*8), uint64(len(text))*8))
	for i := range s {
		s[i] ^= mask[i]
	}
	return out, s[:]
}

// theirSeal makes a datagram; nonce is nil for one that counts.
func theirSeal(secret []byte, label string, epoch int, counter uint64, nonce, pkt []byte) []byte {
	index, key := theirEpoch(secret, label, epoch)
	msg := []byte{5, 0, 0, 0}
	if nonce != nil {
		msg[0] = 6
	}
	msg = binary.BigEndian.AppendUint32(msg, index)
	msg = binary.BigEndian.AppendUint64(msg, counter)
	data := msg
	if nonce == nil {
		nonce, data = msg[4:], msg[:4]
	} else {
		msg = append(msg, nonce...)
	}
	out, tag := theirGCM(key, nonce, data, pkt, false)
	return append(append(msg, out...), tag...)
}

// theirOpen opens a datagram.
func theirOpen(secret []byte, label string, epoch int, msg []byte) (counter uint64, pkt []byte, ok bool) {
	index, key := theirEpoch(secret, label, epoch)
	if binary.BigEndian.Uint32(msg[4:]) != index || msg[1]|msg[2]|msg[3] != 0 {
		return 0, nil, false
	}
	nonce, data, rest := msg[4:16], msg[:4], msg[16:]
	if msg[0] == 6 {
		nonce, data, rest = msg[16:28], msg[:16], msg[28:]
	}
	n := len(rest) - 16
	pkt, tag := theirGCM(key, nonce, data, rest[:n], true)
	return binary.BigEndian.Uint64(msg[8:]), pkt, string(tag) == string(rest[n:])
}
