package main

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"

	"golang.zx2c4.com/wireguard/conn"

	"weft/overlay"
	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
)

// raw is the least that a data plane can do: interface, AES-GCM, UDP with segmentation
// offload, and back. There is one peer and one key; nothing is filtered, counted or checked
// for replays. It is the limit with which scripts/bench compares.
type raw struct {
	net  overlay.Net
	bind *bind.Bind
	aead cipher.AEAD
	peer *bind.Endpoint // set before the sockets carry anything
}

func newRaw(n overlay.Net, b *bind.Bind, limit int) (*raw, error) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return nil, err
	}
	r := &raw{net: n, bind: b}
	if r.aead, err = cipher.NewGCM(block); err != nil {
		return nil, err
	}
	n.SetLimit(func([]byte) int { return limit - rawHeader - r.aead.Overhead() })
	receive, _, err := b.Open(0)
	if err != nil {
		return nil, err
	}
	for _, f := range receive {
		go func() {
			bufs, sizes, from := buffers(bind.BatchSize), make([]int, bind.BatchSize), make([]conn.Endpoint, bind.BatchSize)
			for {
				if _, err := f(bufs, sizes, from); err != nil {
					return
				}
			}
		}()
	}
	return r, nil
}

const rawHeader = 16

func buffers(n int) [][]byte {
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = make([]byte, bind.MaxMessage)
	}
	return bufs
}

// SetPeer implements dataplane.Plane.
func (r *raw) SetPeer(p dataplane.Peer) error {
	r.peer = p.Endpoint
	p.Endpoint.SetTaker(r)
	go r.send()
	return nil
}

func (r *raw) send() {
	bufs, sizes := buffers(bind.BatchSize), make([]int, bind.BatchSize)
	out := make([][]byte, 0, bind.BatchSize)
	for counter := uint64(0); ; {
		n, err := r.net.Read(bufs, sizes, rawHeader)
		if err != nil {
			return
		}
		out = out[:0]
		for i := range n {
			b := bufs[i]
			b[0], b[1], b[2], b[3] = bind.Sealed, 0, 0, 0
			binary.BigEndian.PutUint64(b[8:], counter)
			counter++
			sealed := r.aead.Seal(b[rawHeader:rawHeader], b[4:rawHeader], b[rawHeader:rawHeader+sizes[i]], nil)
			out = append(out, b[:rawHeader+len(sealed)])
		}
		r.bind.Send(out, r.peer)
	}
}

// Take implements bind.Taker.
func (r *raw) Take(msgs [][]byte) {
	keep := msgs[:0]
	for _, m := range msgs {
		if pkt, err := r.aead.Open(m[rawHeader:rawHeader], m[4:rawHeader], m[rawHeader:], nil); err == nil {
			keep = append(keep, m[:rawHeader+len(pkt)])
		}
	}
	r.net.Write(keep, rawHeader)
}

// The rest of dataplane.Plane.

func (r *raw) Prove(cert.NodeID, [32]byte) bool { return true }
func (r *raw) RemovePeer(cert.NodeID)           {}
func (r *raw) Begins([]byte) bool               { return false }
func (r *raw) Close() error                     { return nil }
