package fips

import (
	"crypto/tls"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"weft/overlay/report"
)

func TestHybrids(t *testing.T) {
	if h := hybrids(Off); !slices.Equal(h, []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768}) {
		t.Error(h)
	}
	for _, m := range []Mode{On, Only} {
		if h := hybrids(m); !slices.Equal(h, []tls.CurveID{tls.SecP256r1MLKEM768}) {
			t.Error(m, h)
		}
	}
}

// The claims are exact: no certificate but of the very build that has it, nothing is
// called validated or compliant, and what is outside the module has a reason.
func TestReports(t *testing.T) {
	const frozen = "v1.0.0-c2097c7c"
	for _, c := range []struct {
		name   string
		s      Status
		old    int
		node   map[string]report.Level
		server map[string]report.Level
		cmvp   string
	}{
		{"no FIPS", Status{Off, "latest", ""}, 3,
			map[string]report.Level{"mode": report.Error, "module": report.Error, "packets": report.Warning},
			map[string]report.Level{"mode": report.Error, "module": report.Error}, ""},
		{"on without the module", Status{On, "latest", ""}, 0,
			map[string]report.Level{"mode": report.OK, "module": report.Error, "packets": report.Warning},
			map[string]report.Level{"mode": report.OK, "module": report.Error}, ""},
		{"on", Status{On, "v1.0.0", frozen}, 0,
			map[string]report.Level{"mode": report.OK, "module": report.OK, "packets": report.Warning},
			map[string]report.Level{"mode": report.OK, "module": report.OK}, "5247"},
		{"passwords from before", Status{On, "v1.0.0", frozen}, 2,
			map[string]report.Level{"mode": report.OK, "module": report.OK, "packets": report.Warning},
			map[string]report.Level{"mode": report.OK, "module": report.OK, "passwords": report.Error}, "5247"},
		{"enforced", Status{Only, "v1.0.0", frozen}, 0,
			map[string]report.Level{"mode": report.OK, "module": report.OK, "packets": report.OK},
			map[string]report.Level{"mode": report.OK, "module": report.OK}, "5247"},
		{"another build of v1.0.0", Status{On, "v1.0.0", "v1.0.0-00000000"}, 0,
			map[string]report.Level{"mode": report.OK, "module": report.Error, "packets": report.Warning},
			map[string]report.Level{"mode": report.OK, "module": report.Error}, ""},
		{"in review", Status{On, "v1.26.0", "v1.26.0"}, 0,
			map[string]report.Level{"mode": report.OK, "module": report.Error, "packets": report.Warning},
			map[string]report.Level{"mode": report.OK, "module": report.Error}, ""},
	} {
		var peers []Peer
		for _, suite := range []string{"wireguard", "aes"} {
			with, inside := Suite(c.s.Mode, suite)
			if inside != (c.s.Mode == Only && suite == "aes") {
				t.Errorf("%s: %s: %q, inside %v", c.name, suite, with, inside)
			}
			peers = append(peers, Peer{Name: suite, KeyExchange: "SecP256r1MLKEM768", Suite: with, Inside: inside})
		}
		for _, r := range []struct {
			Report
			want map[string]report.Level
		}{{Node(c.s, peers, ""), c.node}, {Server(c.s, c.old), c.server}} {
			got := map[string]report.Level{}
			for _, f := range r.Findings {
				got[f.Code] = f.Level
				if (f.Cure == "") != (f.Level == report.OK) {
					t.Errorf("%s: cure of %+v", c.name, f)
				}
			}
			if b, _ := json.Marshal(got); string(b) != encode(r.want) {
				t.Errorf("%s: findings %s, want %s", c.name, b, encode(r.want))
			}
			if r.Module.CMVP != c.cmvp || (r.SelfTest == "passed") != (c.s.Mode != Off) {
				t.Errorf("%s: %+v, self-test %s", c.name, r.Module, r.SelfTest)
			}
			for _, u := range r.Uses {
				if u.Inside != (u.Why == "") {
					t.Errorf("%s: %+v", c.name, u)
				}
				outside := []string{"ChaCha20", "argon2", "BLAKE", "SHA-1", "WireGuard", "X25519MLKEM768"}
				if u.Inside && slices.ContainsFunc(outside, func(a string) bool { return strings.Contains(u.Algorithms, a) }) {
					t.Errorf("%s: inside the module: %+v", c.name, u)
				}
			}
			for _, word := range []string{"validated", "certified", "compliant"} {
				if strings.Contains(strings.ToLower(encode(r.Report)), word) {
					t.Errorf("%s claims to be %s", c.name, word)
				}
			}
		}
	}
}

// The rounds that are said are those that are taken.
func TestRoundsAsSaid(t *testing.T) {
	for _, u := range serverUses {
		if i := strings.Index(u.with, "SHA-256, "); strings.Contains(u.with, "PBKDF2") {
			n := strings.Map(func(r rune) rune {
				if unicode.IsDigit(r) {
					return r
				}
				return -1
			}, u.with[i+len("SHA-256, "):])
			if n != strconv.Itoa(Rounds) {
				t.Errorf("%s: %s, not %d", u.what, u.with, Rounds)
			}
		}
	}
}

func encode(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}
