package intro

import (
	"bytes"
	"fmt"
	"math/big"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/cert"
)

// The list of an honest peer arrives, however many peers start a list and never continue,
// send slowly, or send junk.
func TestListComesThrough(t *testing.T) {
	first := func(s *Session, n int) {
		s.Send(Message{Type: TypeCRL, Number: 1 << 40, Total: cert.MaxCRL, Data: make([]byte, n)})
	}
	for name, behave := range map[string]func(s *Session, quit <-chan struct{}){
		"silent": func(s *Session, _ <-chan struct{}) { first(s, 10) },
		"crawling": func(s *Session, quit <-chan struct{}) {
			first(s, 10)
			for at := 10; ; at++ {
				select {
				case <-time.After(100 * time.Millisecond):
					s.Send(Message{Type: TypeCRL, Number: 1 << 40, Total: cert.MaxCRL, Offset: at, Data: []byte{1}})
				case <-quit:
					return
				}
			}
		},
		"beginning anew": func(s *Session, quit <-chan struct{}) {
			for {
				first(s, 1000)
				select {
				case <-time.After(100 * time.Millisecond):
				case <-quit:
					return
				}
			}
		},
		"junk": func(s *Session, _ <-chan struct{}) {
			for range 3 {
				s.Send(Message{Type: TypeCRL, Number: 1 << 40, Total: 10, Data: make([]byte, 10)})
			}
		},
	} {
		for _, entries := range []int{1, 20_000} {
			t.Run(fmt.Sprint(name, entries), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newNetwork(t)
					w.t = t
					b, honest := w.node("b"), w.node("honest")
					junk := 0
					onCRL := b.cfg.OnCRL
					b.cfg.OnCRL = func(der []byte) {
						if len(der) == 10 {
							b.mu.Lock()
							junk++
							b.mu.Unlock()
							return
						}
						onCRL(der)
					}
					w.wire.latency = oneWay
					const liars = 12
					quit := make(chan struct{})
					for range liars {
						s := introduce(t, w.node("liar"), b)
						go behave(s, quit)
					}
					defer close(quit)
					time.Sleep(3 * listTurn)
					serials := []*big.Int{cert.NewSerial()}
					for range entries - 1 {
						serials = append(serials, cert.NewSerial())
					}
					der, err := w.ca.SignCRL(5, serials, time.Time{}, time.Now())
					if err != nil {
						t.Fatal(err)
					}
					crl, err := w.roots.VerifyCRL(der)
					if err != nil {
						t.Fatal(err)
					}
					honest.mu.Lock()
					honest.crl = crl
					honest.mu.Unlock()
					introduce(t, honest, b)
					time.Sleep((liars + 1) * listTurn)
					synctest.Wait()
					b.mu.Lock()
					if b.crl == nil || !bytes.Equal(b.crl.Raw, der) {
						t.Error("the list did not arrive")
					}
					if name == "junk" && junk != liars {
						t.Errorf("%d lists that do not verify were looked at, of %d peers", junk, liars)
					}
					b.mu.Unlock()
					b.Switch.mu.Lock()
					if len(b.lists) > listPlaces || len(b.listless) > liars {
						t.Errorf("%d lists arrive, %d wait", len(b.lists), len(b.listless))
					}
					b.Switch.mu.Unlock()
				})
			})
		}
	}
}
