package overlay_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"weft/coord/ops"
	"weft/coord/policy"
	"weft/overlay/cert"
	"weft/overlay/internal/filter"
)

// What the server answers about a policy is what happens between nodes once they have it:
// flows that it allows continue, those that it does not allow are cut, whoever has them.
// How long both took is in the log.
func TestPolicyAnswersHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi, laptop, cam := w.node("kitchen-pi", "device"), w.node("laptop"), w.node("cam", "camera")
	pi.echo()
	rule := func(from, to, ports string) string {
		return fmt.Sprintf(`{"rules":[{"from":["user:*"],"to":["self"],"ports":["tcp:80"]},{"from":[%q],"to":[%q],"ports":[%q],},],}`, from, to, ports)
	}
	everything := `{"rules":[{"from":["*"],"to":["*"],"ports":["*"]}]}`
	set := func(text string) {
		t.Helper()
		start := time.Now()
		if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.SetPolicy{Text: text}); err != nil {
			t.Fatal(err)
		}
		eventually(t, 20*time.Second, "all have the policy", func() bool {
			for _, n := range []*node{pi, laptop, cam} {
				if n.Versions().Config != w.svc.Versions(n.id()).Config {
					return false
				}
			}
			return true
		})
		t.Logf("%s: fetched after %s", text, time.Since(start).Round(time.Millisecond))
	}
	for _, text := range []string{rule("user:admin", "tag:device", "tcp:1-7"), rule("tag:camera", "tag:device", "tcp:7"), rule("tag:camera", "tag:device", "tcp:8"), rule("*", "*", "udp")} {
		set(everything)
		flows := map[*node]io.ReadWriter{}
		for _, n := range []*node{laptop, cam} {
			eventually(t, 20*time.Second, "a way there", func() bool { _, err := n.Resolve(t.Context(), "kitchen-pi"); return err == nil })
			c := n.dial("tcp4", "kitchen-pi:7")
			say(t, c, "before")
			flows[n] = c
		}
		set(text)
		have := time.Now()
		for n, c := range flows {
			name := n.Status().Self.Name
			answer, err := w.svc.CanReach(t.Context(), ops.Root(), ops.AccessQuery{From: "device:" + name, To: "kitchen-pi:7"})
			if err != nil {
				t.Fatal(err)
			}
			c := c.(interface {
				io.ReadWriter
				SetDeadline(time.Time) error
			})
			echoes := func(wait time.Duration) bool {
				c.SetDeadline(time.Now().Add(wait))
				if _, err := io.WriteString(c, "x"); err != nil {
					return false
				}
				_, err := io.ReadFull(c, make([]byte, 1))
				return err == nil
			}
			if answer.Allowed {
				if !echoes(20 * time.Second) {
					t.Errorf("%s: %s is cut off: %s", text, name, answer.Why)
				}
				continue
			}
			eventually(t, 20*time.Second, name+" is cut off", func() bool { return !echoes(200 * time.Millisecond) })
			t.Logf("%s: %s cut %s after that", text, name, time.Since(have).Round(time.Millisecond))
		}
	}
}

// probe is a packet that begins something at a port.
func probe(src, dst netip.Addr, proto string, port uint16) []byte {
	number, body := byte(6), make([]byte, 20)
	switch proto {
	case "udp":
		number, body = 17, make([]byte, 8)
		binary.BigEndian.PutUint16(body[4:], 8)
	case "icmp":
		number, body = 1, []byte{8, 0, 0, 0, 0, 1, 0, 1}
	default:
		body[12], body[13] = 5<<4, 2 // SYN
	}
	if proto != "icmp" {
		binary.BigEndian.PutUint16(body, 40000)
		binary.BigEndian.PutUint16(body[2:], port)
	}
	p := make([]byte, 20, 40)
	p[0], p[8], p[9] = 0x45, 64, number
	binary.BigEndian.PutUint16(p[2:], uint16(20+len(body)))
	copy(p[12:], src.AsSlice())
	copy(p[16:], dst.AsSlice())
	return append(p, body...)
}

// What a policy explains is what the filter of a node does that has its rules, with the
// certificate of whoever comes, which says nothing of groups and of who is suspended.
func TestExplainedIsEnforced(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	some := func(of ...string) (list []string) {
		for range 1 + r.IntN(3) {
			list = append(list, pick(of...))
		}
		return list
	}
	here, there := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")
	groups := map[string][]string{"b": {"g"}, "c": {"g", "h"}} // of users
	suspended := ""
	subject := func() policy.Subject {
		user := pick("a", "b", "c")
		s := policy.Subject{User: user, Groups: groups[user], Suspended: user == suspended}
		if r.IntN(2) == 0 {
			s.Tags = some("x", "y", "z")
		}
		return s
	}
	allowed := 0
	for range 300 {
		p := policy.Policy{Rules: []policy.Rule{{From: []string{"user:*"}, To: []string{"self"}, Ports: some("*", "tcp:22", "udp", "icmp")}}}
		for range r.IntN(5) {
			p.Rules = append(p.Rules, policy.Rule{
				From:  some("*", "user:a", "user:b", "tag:x", "tag:y", "group:g"),
				To:    some("*", "self", "user:a", "user:c", "tag:y", "tag:z", "group:h"),
				Ports: some("*", "tcp", "udp:53", "tcp:20-30", "tcp:65535", "icmp"),
			})
		}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := policy.Parse(string(text))
		if err != nil {
			t.Fatal(err)
		}
		suspended = pick("", "a", "b", "c")
		people := policy.People{Users: map[string]policy.Person{}, Tags: []string{"x", "y", "z"}}
		for _, user := range []string{"a", "b", "c"} {
			people.Users[user] = policy.Person{Groups: groups[user], Suspended: user == suspended}
		}
		audience := parsed.Audience(people)
		for range 20 {
			src, dst := subject(), subject()
			peer := &cert.Node{Attributes: cert.Attributes{User: src.User, Tags: src.Tags}}
			f := filter.NewPeer([]netip.Addr{here}, []netip.Addr{there}, filter.Compile(parsed.RulesFor(dst, audience), peer, filter.Terms{}))
			for _, at := range []policy.Target{{Proto: "tcp", Port: 22}, {Proto: "tcp", Port: 65535}, {Proto: "tcp", Port: 1}, {Proto: "udp", Port: 53}, {Proto: "udp", Port: 54}, {Proto: "icmp"}} {
				d := parsed.Explain(src, dst, at.Proto, at.Port)
				if v := f.CheckIn(probe(there, here, at.Proto, at.Port), 1); v.OK() != d.Allowed {
					t.Fatalf("%s: %+v -> %+v at %+v: %+v, the node says %s", text, src, dst, at, d, v)
				}
				if d.Allowed {
					allowed++
				}
			}
		}
	}
	if allowed < 1000 {
		t.Errorf("only %d were allowed", allowed)
	}
}
