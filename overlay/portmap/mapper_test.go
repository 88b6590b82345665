package portmap

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const testPort = 41641

// With each protocol a mapping is made, confirmed, renewed, removed when idle, made
// again, and removed at the end.
func TestLife(t *testing.T) {
	for _, tt := range []struct {
		name   string
		router *router
		want   Kind
	}{
		{"pcp", &router{pcp: true}, KindPCP},
		{"nat-pmp", &router{natpmp: true}, KindNATPMP},
		{"upnp", &router{upnp: true}, KindUPnP},
		{"all", &router{pcp: true, natpmp: true, upnp: true}, KindPCP},
		{"port taken", &router{upnp: true, conflicts: 2}, KindUPnP},
		{"permanent only", &router{upnp: true, permanentOnly: true}, KindUPnP},
		{"URLBase", &router{upnp: true, description: func(w http.ResponseWriter) {
			io.WriteString(w, strings.Replace(goodDescription, "<device>", "<URLBase>http://192.168.1.1:5000</URLBase><device>", 1))
		}}, KindUPnP},
		{"sloppy XML", &router{upnp: true, description: func(w http.ResponseWriter) {
			io.WriteString(w, `<?xml version="1.0" encoding="gb2312"?><root><br>AT&T &nope; </wrong>`+goodDescription[22:])
		}}, KindUPnP},
		// After a refusal in one protocol the next one is tried.
		{"pcp refused", &router{pcp: true, natpmp: true, upnp: true, refuse: 2}, KindUPnP},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHome(t, tt.router)
				defer h.close()
				time.Sleep(time.Hour)
				if n := h.router.seen(""); n != 0 || h.m.Status() != (Status{}) {
					t.Errorf("asked without a Want: %v", h.router.requests)
				}
				h.m.Want(testPort)
				if !h.m.Status().Trying {
					t.Error("not trying")
				}
				start := time.Now()
				s := h.settle()
				if s.Kind != tt.want || s.External.Addr() != wanAddr || s.Useless || s.Err != "" || s.Gateway != gwAddr || !s.Settled() {
					t.Fatalf("%+v; requests %v", s, h.router.requests)
				}
				t.Logf("%s after %v", s.External, time.Since(start).Round(100*time.Millisecond))
				check := func() {
					t.Helper()
					table := h.router.table()
					if e := table[s.External.Port()]; len(table) != 1 || e.client != selfAddr || e.port != testPort || e.kind != tt.want {
						t.Fatalf("mappings %v", table)
					}
				}
				check()
				if tt.router.conflicts == 0 && tt.name != "port taken" && s.External.Port() != testPort {
					t.Errorf("external %s", s.External)
				}
				// It lasts for hours while it is wanted.
				for range 60 {
					time.Sleep(4 * time.Minute)
					h.m.Want(testPort)
					h.m.Want(testPort)
					if got := h.settle(); got.External != s.External {
						t.Fatalf("%+v", got)
					}
					check()
				}
				// Then it is removed, and nothing more is sent.
				time.Sleep(2 * time.Hour)
				if table := h.router.table(); len(table) != 0 || h.m.Status().External.IsValid() {
					t.Errorf("still there: %v, %+v", table, h.m.Status())
				}
				n := h.router.seen("")
				time.Sleep(24 * time.Hour)
				if h.router.seen("") != n {
					t.Errorf("asked without a Want: %v", h.router.requests[n:])
				}
				h.m.Want(testPort)
				s = h.settle()
				check()
				// A mapping for another port replaces the first.
				h.m.Want(testPort + 1)
				s = h.settle()
				if table := h.router.table(); len(table) != 1 || table[s.External.Port()].port != testPort+1 {
					t.Errorf("mappings %v", table)
				}
				start = time.Now()
				h.m.Close()
				if d := time.Since(start); d > time.Second {
					t.Errorf("Close took %v", d)
				}
				if table := h.router.table(); len(table) != 0 {
					t.Errorf("left behind: %v", table)
				}
			})
		})
	}
}

func TestNoGatewayAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, &router{})
		defer h.close()
		h.m.Want(testPort)
		s := h.settle()
		if s.Kind != KindNone || s.Err != errSilent.Error() || s.External.IsValid() || !s.Settled() {
			t.Errorf("%+v", s)
		}
		// The gateway is not asked again for ten minutes, unless the network changes.
		h.m.Want(testPort)
		if h.m.Status().Trying {
			t.Error("asked again at once")
		}
		h.router.mu.Lock()
		h.router.natpmp = true
		h.router.mu.Unlock()
		h.m.Wake()
		if s = h.settle(); s.Kind != KindNATPMP {
			t.Errorf("%+v", s)
		}
		h.mu.Lock()
		if len(h.changes) != 2 {
			t.Errorf("changes %+v", h.changes)
		}
		h.mu.Unlock()
	})
}

// The router restarts with another address and without its mappings.
func TestRouterRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, &router{pcp: true})
		defer h.close()
		h.m.Want(testPort)
		h.settle()
		h.router.mu.Lock()
		clear(h.router.mappings)
		h.router.external = netip.MustParseAddr("198.51.100.99")
		h.router.mu.Unlock()
		time.Sleep(6 * time.Minute)
		h.m.Want(testPort)
		if s := h.settle(); s.External.Addr().String() != "198.51.100.99" || len(h.router.table()) != 1 {
			t.Errorf("%+v", s)
		}
		// The router is away for a while: it is asked again a minute later.
		h.router.mu.Lock()
		h.router.pcp = false
		h.router.mu.Unlock()
		time.Sleep(6 * time.Minute)
		h.m.Want(testPort)
		if s := h.settle(); s.External.IsValid() || s.Err == "" {
			t.Errorf("%+v", s)
		}
		h.router.mu.Lock()
		h.router.pcp = true
		h.router.mu.Unlock()
		time.Sleep(61 * time.Second)
		h.m.Want(testPort)
		if s := h.settle(); s.Kind != KindPCP {
			t.Errorf("%+v", s)
		}
	})
}

func TestDoubleNAT(t *testing.T) {
	for _, r := range []*router{{pcp: true}, {natpmp: true}, {upnp: true}} {
		synctest.Test(t, func(t *testing.T) {
			h := newHome(t, r)
			defer h.close()
			for _, ext := range []string{"10.0.0.7", "100.64.3.4", "192.168.0.2"} {
				r.mu.Lock()
				r.external = netip.MustParseAddr(ext)
				r.mu.Unlock()
				h.m.Wake()
				h.m.Want(testPort)
				if s := h.settle(); !s.Useless || s.External.Addr().String() != ext {
					t.Errorf("%s: %+v", ext, s)
				}
			}
		})
	}
}

func TestAddressesOfNoUse(t *testing.T) {
	for _, r := range []*router{{pcp: true}, {natpmp: true}, {upnp: true}} {
		for _, ext := range []string{"0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "169.254.1.1"} {
			synctest.Test(t, func(t *testing.T) {
				r := &router{pcp: r.pcp, natpmp: r.natpmp, upnp: r.upnp}
				h := newHome(t, r)
				defer h.close()
				r.mu.Lock()
				r.external = netip.MustParseAddr(ext)
				r.mu.Unlock()
				h.m.Want(testPort)
				if s := h.settle(); s.External.IsValid() || !strings.Contains(s.Err, "no usable external address") {
					t.Errorf("%s: %+v", ext, s)
				}
			})
		}
	}
}

func TestLifetimesAreBounded(t *testing.T) {
	for life, max := range map[time.Duration]int{time.Second: 60, 1 << 31 * time.Second: 1, 365 * 24 * time.Hour: 1} {
		synctest.Test(t, func(t *testing.T) {
			h := newHome(t, &router{pcp: true, life: life})
			defer h.close()
			h.m.Want(testPort)
			h.settle()
			n := h.router.seen("pcp")
			time.Sleep(5 * time.Minute)
			if got := h.router.seen("pcp") - n; got > max {
				t.Errorf("lifetime %v: %d renewals in five minutes", life, got)
			}
		})
	}
}

// A gateway that lies, and other machines that answer instead of it.
func TestHostile(t *testing.T) {
	describe := func(xml string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { io.WriteString(w, xml) }
	}
	endless := func(w http.ResponseWriter) {
		for range 1 << 10 {
			if _, err := io.WriteString(w, strings.Repeat("<service>", 1<<10)); err != nil {
				return
			}
		}
	}
	trickle := func(w http.ResponseWriter) {
		for range 3600 {
			io.WriteString(w, " ")
			w.(http.Flusher).Flush()
			time.Sleep(time.Second)
		}
	}
	for name, r := range map[string]*router{
		"location elsewhere":    {upnp: true, location: "http://203.0.113.9/root.xml"},
		"location by name":      {upnp: true, location: "http://router.example:5000/root.xml"},
		"location https":        {upnp: true, location: "https://192.168.1.1:5000/root.xml"},
		"location file":         {upnp: true, location: "file:///etc/passwd"},
		"location metadata":     {upnp: true, location: "http://169.254.169.254/latest/"},
		"location loopback":     {upnp: true, location: "http://127.0.0.1:5000/"},
		"location with user":    {upnp: true, location: "http://192.168.1.1:80@203.0.113.9/"},
		"location long":         {upnp: true, location: "http://192.168.1.1:5000/" + strings.Repeat("a", 1200)},
		"location bad port":     {upnp: true, location: "http://192.168.1.1:99999/"},
		"redirect":              {upnp: true, description: func(w http.ResponseWriter) { w.Header().Set("Location", "http://203.0.113.9/"); w.WriteHeader(302) }},
		"control elsewhere":     {upnp: true, description: describe(strings.ReplaceAll(goodDescription, "/ctl", "http://203.0.113.9/ctl"))},
		"base elsewhere":        {upnp: true, description: describe(strings.Replace(goodDescription, "<device>", "<URLBase>http://203.0.113.9/</URLBase><device>", 1))},
		"control //elsewhere":   {upnp: true, description: describe(strings.ReplaceAll(goodDescription, "/ctl", "//203.0.113.9/ctl"))},
		"no XML":                {upnp: true, description: describe(strings.Repeat("\x00<", 1000))},
		"endless XML":           {upnp: true, description: endless},
		"another one answers":   {upnp: true, onlyGroup: true},
		"hangs":                 {upnp: true, description: func(http.ResponseWriter) { time.Sleep(time.Hour) }},
		"a byte a second":       {upnp: true, description: trickle},
		"junk":                  {answer: func([]byte) []byte { return []byte(strings.Repeat("\x02\x81", 600)) }},
		"PCP for other nonce":   {answer: pcpLie(24)},
		"PCP for other port":    {answer: pcpLie(40)},
		"PCP for TCP":           {answer: pcpLie(36)},
		"PCP, no port":          {answer: pcpLie(-1)},
		"NAT-PMP for others":    {answer: func(b []byte) []byte { return []byte{0, 129, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 0, 0, 14, 16} }},
		"NAT-PMP in circles":    {answer: func(b []byte) []byte { return []byte{0, 130, 0, 1, 0, 0, 0, 1} }},
		"empty":                 {answer: func([]byte) []byte { return nil }},
		"longer than may be":    {answer: func(b []byte) []byte { return append(make([]byte, 1400), b...) }},
		"request sent back":     {answer: func(b []byte) []byte { return b }},
		"description answers 1": {upnp: true, description: func(w http.ResponseWriter) { w.WriteHeader(404) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHome(t, r)
				defer time.Sleep(2 * time.Hour) // until all handlers have ended
				elsewhere := h.in.Host("elsewhere", "203.0.113.9")
				l, err := elsewhere.Listen("tcp", ":80")
				if err != nil {
					t.Fatal(err)
				}
				defer h.close()
				defer l.Close()
				h.m.Want(testPort)
				s := h.settle()
				if s.External.IsValid() || s.Err == "" {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// pcpLie is a PCP reply with one changed byte; -1 omits the port.
func pcpLie(at int) func([]byte) []byte {
	return func(b []byte) []byte {
		if len(b) != pcpMapLen {
			return nil
		}
		out := append([]byte(nil), b...)
		out[1] |= 0x80
		ip := wanAddr.As16()
		copy(out[44:], ip[:])
		if at < 0 {
			out[42], out[43] = 0, 0
		} else {
			out[at] ^= 0xff
		}
		return out
	}
}

func TestNotAsked(t *testing.T) {
	for name, gw := range map[string][3]string{
		"public":    {"203.0.113.1", "203.0.113.5", "public address"},
		"none":      {"", "", "no IPv4 gateway"},
		"self":      {"192.168.1.1", "192.168.1.1", "no IPv4 gateway"},
		"loopback":  {"127.0.0.1", "192.168.1.10", "no IPv4 gateway"},
		"multicast": {"224.0.0.1", "192.168.1.10", "no IPv4 gateway"},
		"IPv6":      {"fe80::1", "2001:db8::1", "no IPv4 gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHome(t, &router{pcp: true, upnp: true})
				defer h.close()
				h.mu.Lock()
				h.gateway = func() (a, b netip.Addr, err error) {
					if gw[0] == "" {
						return a, b, errNoGateway
					}
					return netip.MustParseAddr(gw[0]), netip.MustParseAddr(gw[1]), nil
				}
				h.mu.Unlock()
				h.m.Want(testPort)
				if s := h.settle(); s.External.IsValid() || !strings.Contains(s.Err, gw[2]) || h.router.seen("") != 0 {
					t.Errorf("%+v, requests %v", s, h.router.requests)
				}
			})
		})
	}
	m := New(Config{Gateway: func() (a, b netip.Addr, err error) { return a, b, errors.New("not to be asked") }})
	m.Start()
	m.Want(0)
	if s := m.Status(); !s.Settled() || s.Err == "" {
		t.Errorf("without a socket: %+v", s)
	}
	m.Close()
	m.Close()
}

// Close does not wait for a gateway that is being asked.
func TestCloseMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, &router{})
		defer h.close()
		h.m.Want(testPort)
		time.Sleep(100 * time.Millisecond)
		start := time.Now()
		h.m.Close()
		if d := time.Since(start); d > time.Second {
			t.Errorf("took %v", d)
		}
	})
}

// A vanished gateway delays Close by a second.
func TestCloseWithoutGateway(t *testing.T) {
	for _, r := range []*router{{pcp: true}, {natpmp: true}, {upnp: true}} {
		synctest.Test(t, func(t *testing.T) {
			h := newHome(t, r)
			defer h.close()
			h.m.Want(testPort)
			if s := h.settle(); !s.External.IsValid() {
				t.Fatalf("%+v", s)
			}
			h.router.host.PowerOff()
			start := time.Now()
			h.m.Close()
			if d := time.Since(start); d > time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}
