package portmap

import (
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"
)

func FuzzPCP(f *testing.F) {
	nonce := [12]byte{1, 2, 3}
	good := appendPCPMap(nil, selfAddr, nonce, testPort, netip.AddrPortFrom(wanAddr, testPort), time.Hour)
	good[1] |= 0x80
	f.Add(good)
	f.Add(good[:24])
	f.Add([]byte{0, 129, 0, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parsePCPMap(b, nonce, testPort)
		if err == nil && (len(b) < pcpMapLen || a.kind != KindPCP || a.err == nil && a.life < 0) {
			t.Errorf("%+v", a)
		}
	})
}

func FuzzNATPMP(f *testing.F) {
	f.Add([]byte{0, 128, 0, 0, 0, 0, 0, 9, 198, 51, 100, 7})
	f.Add([]byte{0, 129, 0, 0, 0, 0, 0, 9, testPort >> 8, testPort & 255, 1, 2, 0, 0, 14, 16})
	f.Add([]byte{0, 129, 0, 2, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseNATPMP(b, testPort)
		if err == nil && (a.kind != KindNATPMP || len(b) > 16) {
			t.Errorf("%+v", a)
		}
	})
}

func FuzzSSDP(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nLOCATION: http://192.168.1.1:5000/root.xml\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\nlocation:http://192.168.1.1@203.0.113.9/"))
	a := attempt{gateway: gwAddr}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, ok := parseSSDP(b)
		if !ok {
			return
		}
		if len(l) > maxText {
			t.Errorf("%d bytes", len(l))
		}
		if u, err := a.url(l); err == nil {
			if ip, err := netip.ParseAddr(u.Hostname()); err != nil || ip.Unmap() != gwAddr || u.Scheme != "http" {
				t.Errorf("%s", u)
			}
		}
	})
}

func FuzzUPnP(f *testing.F) {
	f.Add([]byte(goodDescription))
	f.Add([]byte("<errorCode>725</errorCode>"))
	f.Add([]byte(strings.Repeat("<a>", 100)))
	f.Add([]byte("<!DOCTYPE x [<!ENTITY a \"b\">]><x>&a;</x>"))
	a := attempt{gateway: gwAddr}
	base, _ := url.Parse("http://192.168.1.1:5000/root.xml")
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range parseServices(b) {
			if len(s.control) > maxText || len(s.base) > maxText {
				t.Errorf("%d and %d bytes", len(s.control), len(s.base))
			}
			if u, err := base.Parse(s.control); err == nil && a.onGateway(u) == nil && u.Hostname() != gwAddr.String() {
				if ip, _ := netip.ParseAddr(u.Hostname()); ip.Unmap() != gwAddr {
					t.Errorf("%s", u)
				}
			}
		}
		parseSOAP(b, "NewExternalIPAddress")
	})
}

// A quarter of a megabyte of the worst XML costs at most a few megabytes.
func TestXMLIsBounded(t *testing.T) {
	for name, xml := range map[string]string{
		"deep":       strings.Repeat("<a>", maxBody/3),
		"attributes": "<a " + strings.Repeat("b='c' ", maxBody/6),
		"text":       "<a>" + strings.Repeat("x", maxBody),
		"services":   strings.Repeat("<service><controlURL>/x</controlURL></service>", maxBody/46),
		"entities":   "<a>" + strings.Repeat("&amp;", maxBody/5) + "</a>",
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		parseServices([]byte(xml))
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
			t.Errorf("%s: %d MB", name, n>>20)
		}
	}
}
