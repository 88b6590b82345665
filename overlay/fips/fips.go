// Package fips knows about FIPS 140-3 mode: whether this program runs in it, which
// algorithms weft then chooses, and what an auditor is told (Report).
//
// Go's standard library has its approved algorithms in one module, the Go Cryptographic
// Module. A program that was built with GOFIPS140=v1.0.0 has a frozen version of it and
// starts in FIPS mode; GODEBUG=fips140=on, only or off changes the mode, for any build:
//
//	on    the module has tested itself; crypto/tls uses approved algorithms only
//	only  besides, every other algorithm of the standard library fails or panics
//
// In both, weft makes nothing new with another algorithm and reads no password or backup
// made with one, and its own links and introductions use a key exchange both halves of
// which are in the module. Packets are another matter: WireGuard is not in the module, and
// for AES weft counts the nonces itself. With on both carry packets, and weft says so. With
// only a node uses AES alone, with nonces that the module chooses, and refuses peers that
// have no AES.
//
// Not for embedders: it is about weft's own programs.
package fips

import (
	"crypto/fips140"
	"crypto/tls"
	"runtime/debug"
	"sync"
)

// Mode is the value of GODEBUG=fips140 in effect.
type Mode string

// The modes.
const (
	Off  Mode = "off"
	On   Mode = "on"
	Only Mode = "only" // enforced
)

// Word is the mode for people.
func (m Mode) Word() string {
	if m == Only {
		return "enforced"
	}
	return string(m)
}

// Current returns the mode of this process. It does not change.
func Current() Mode {
	switch {
	case !fips140.Enabled():
		return Off
	case fips140.Enforced():
		return Only
	}
	return On
}

// Enabled reports whether the process is in FIPS mode, enforced or not.
func Enabled() bool { return fips140.Enabled() }

// Hybrids returns the key exchanges of links and introductions, in order of preference. A
// recording must stay secret even if there are quantum computers one day, so each has
// ML-KEM.
func Hybrids() []tls.CurveID { return hybrids(Current()) }

func hybrids(m Mode) []tls.CurveID {
	if m != Off {
		return []tls.CurveID{tls.SecP256r1MLKEM768} // X25519 is outside the module
	}
	return []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768}
}

// Status is what a status says of FIPS mode.
type Status struct {
	Mode Mode `json:"mode"`
	// Module is the version of the Go Cryptographic Module, such as "v1.0.0"; "latest" is
	// the one of the Go release, which has no certificate.
	Module string `json:"module"`
	// Frozen is the very build of it, such as "v1.0.0-c2097c7c"; "" without GOFIPS140.
	Frozen string `json:"frozen"`
}

// Now returns the Status of this process.
func Now() Status { return Status{Current(), fips140.Version(), frozen()} }

// frozen is the module that was linked, with the suffix that tells it from others of the
// same version: "v1.0.0-c2097c7c". It is "" for a build without GOFIPS140.
var frozen = sync.OnceValue(func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "GOFIPS140" {
			return s.Value
		}
	}
	return ""
})
