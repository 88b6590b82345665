package coord

import (
	"net"
	"testing"
)

func TestCheckDomain(t *testing.T) {
	for name, good := range map[string]bool{
		"weft.example.com": true, "a.b": true, "": false, "localhost": false, "192.0.2.1": false, "2001:db8::1": false, "a b.example": false, "*.example.com": false, "https://a.b": false,
	} {
		if err := checkDomain(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestDomainURL(t *testing.T) {
	for port, want := range map[int]string{443: "https://w.example", 8443: "https://w.example:8443"} {
		if got := domainURL("w.example", &net.TCPAddr{Port: port}); got != want {
			t.Errorf("%d: %s", port, got)
		}
	}
}
