package relay

import (
	"crypto/x509"
	"testing"
)

// No relay, nor two that collude, can tell the value that a process sends to another
// relay.
func TestProcessDiffersByRelay(t *testing.T) {
	one, other := []*x509.Certificate{{RawSubjectPublicKeyInfo: []byte("one")}}, []*x509.Certificate{{RawSubjectPublicKeyInfo: []byte("other")}}
	at := processAt("0123456789abcdef", one)
	if again := processAt("0123456789abcdef", one); again != at {
		t.Errorf("%s and %s at one relay", at, again)
	}
	if elsewhere := processAt("0123456789abcdef", other); elsewhere == at {
		t.Errorf("%s at two relays", at)
	}
	if next := processAt("fedcba9876543210", one); next == at {
		t.Errorf("%s of two processes", at)
	}
}
