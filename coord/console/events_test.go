package console_test

import (
	"bufio"
	"context"
	"fmt"
	"html"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"weft/coord/console"
	"weft/coord/ops"
)

// live is an open stream; its events but for the pulse arrive on a channel that is closed
// when the server ends it.
type live struct {
	events chan string
	beats  chan struct{}
	res    *http.Response
}

func (b *browser) live() *live { b.t.Helper(); return b.liveAt("/events") }

func (b *browser) liveAt(at string) *live {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b.t.Cleanup(cancel)
	req := b.request("GET", at, nil).WithContext(ctx)
	req.Header.Set("Accept", "text/html, text/event-stream")
	res, err := b.Client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	l := &live{events: make(chan string, 10_000), beats: make(chan struct{}, 10_000), res: res}
	if res.StatusCode != 200 {
		res.Body.Close()
		close(l.events)
		return l
	}
	go func() {
		defer close(l.events)
		defer res.Body.Close()
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			if name, ok := strings.CutPrefix(lines.Text(), "event: "); name == "pulse" {
				l.beats <- struct{}{}
			} else if ok {
				l.events <- name
			}
		}
	}()
	return l
}

// until reads events up to one with this name; it returns what it read.
func (l *live) until(t *testing.T, name string) []string {
	t.Helper()
	var seen []string
	timeout := time.After(10 * time.Second)
	for {
		select {
		case e, ok := <-l.events:
			if !ok {
				t.Fatalf("stream ended before %q, after %v", name, seen)
			}
			if seen = append(seen, e); e == name {
				return seen
			}
		case <-timeout:
			t.Fatalf("no %q, only %v", name, seen)
		}
	}
}

// ended waits for the end of the stream.
func (l *live) ended(t *testing.T) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case _, ok := <-l.events:
			if !ok {
				return
			}
		case <-timeout:
			t.Fatal("the stream goes on")
		}
	}
}

func TestEvents(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	l := b.live()
	if ct := l.res.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Errorf("content type %q", ct)
	}
	l.until(t, "resync")
	d := s.net.Add("one", "linux/arm64", "device")
	seen := strings.Join(append(l.until(t, "devices"), ""), " ")
	seen += strings.Join(l.rest(t, 3-strings.Count(seen, " ")), " ")
	for _, want := range []string{"devices", "device-" + d.ID.String(), "key-" + d.Show().KeyID} {
		if !strings.Contains(seen, want) {
			t.Errorf("no %s in %q", want, seen)
		}
	}
	d.Connect()
	l.until(t, "device-"+d.ID.String())
	<-l.beats
}

// A member hears of its own devices, and of no others.
func TestEventsOfMembers(t *testing.T) {
	s := newSite(t)
	bob := s.net.Member("bob")
	b := s.browser().enterAs("bob")
	l := b.live()
	l.until(t, "resync")
	others := s.net.Add("one", "linux/arm64", "device")
	others.Rename("two")
	made, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.CreateKey{UserID: bob.ID})
	if err != nil {
		t.Fatal(err)
	}
	mine, err := s.net.Join(made.Token, "mine", "linux/arm64")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range l.until(t, "device-"+mine.ID.String()) {
		if e == "device-"+others.ID.String() {
			t.Error("bob hears of another's device")
		}
	}
}

// rest reads n more events.
func (l *live) rest(t *testing.T, n int) (seen []string) {
	t.Helper()
	for range n {
		select {
		case e := <-l.events:
			seen = append(seen, e)
		case <-time.After(10 * time.Second):
			t.Fatalf("only %v", seen)
		}
	}
	return seen
}

// TestEventsInBulk: thousands of changes are a few events, and who cannot keep
// up is told to fetch anew.
func TestEventsInBulk(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	l := b.live()
	l.until(t, "resync")
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprint("d", i))
	}
	fleet := s.net.AddMany(names, "linux/arm64", "device")
	for i := range 5000 {
		s.net.Presence(fleet[i%100].ID, uint64(i), i/100%2 == 0, s.Now(), netip.MustParseAddr("192.0.2.1"))
	}
	last := s.net.Add("last", "linux/arm64", "device").ID.String()
	timeout := time.After(10 * time.Second)
	n := 0
	for done := false; !done; {
		select {
		case e := <-l.events:
			n++
			done = e == "device-"+last
			if e == "resync" { // what is shown is fetched, and the last device is there
				b.get("/devices?q=last").want(t, 200, last)
				done = true
			}
		case <-timeout:
			t.Fatal("neither the last change nor resync")
		}
	}
	if n > 1500 {
		t.Errorf("%d events", n)
	}
}

func TestEventsEndWithTheSession(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	for name, end := range map[string]func(){
		"sign-out":  func() { b.post("/sign-out").want(t, 303) },
		"elsewhere": func() { s.net.EndSessions("admin") },
		"idle":      func() { s.advance(7*24*time.Hour + time.Second) },
		"new link":  func() { s.browser().enter() },
	} {
		t.Run(name, func(t *testing.T) {
			s.advance(time.Minute)
			b.signIn()
			l := b.live()
			l.until(t, "resync")
			end()
			l.until(t, "signed-out")
			l.ended(t)
			again := b.live()
			if again.res.StatusCode != 401 || again.res.Header.Get("HX-Redirect") != "/sign-in" {
				t.Errorf("stream of an ended session: %d", again.res.StatusCode)
			}
		})
	}
}

// TestIdleStream: an open page does not keep its session alive.
func TestIdleStream(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	l := b.live()
	l.until(t, "resync")
	for range 13 {
		s.advance(12 * time.Hour)
		<-l.beats
	}
	s.advance(13 * time.Hour)
	l.until(t, "signed-out")
	l.ended(t)
}

func TestStreamsAreBounded(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	var open []*live
	for i := range 40 {
		l := b.live()
		switch {
		case l.res.StatusCode == 200:
			l.until(t, "resync")
			open = append(open, l)
		case l.res.StatusCode != 503 || l.res.Header.Get("Retry-After") == "":
			t.Fatalf("stream %d: %d", i, l.res.StatusCode)
		}
	}
	if len(open) != 32 {
		t.Errorf("%d streams of one user", len(open))
	}
	if n := s.net.Followers(); n != len(open) {
		t.Errorf("%d subscriptions", n)
	}
	s.console.Close()
	for _, l := range open {
		l.ended(t)
	}
	for end := time.Now().Add(10 * time.Second); s.net.Followers() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d subscriptions are left", s.net.Followers())
		}
	}
	if b.live().res.StatusCode != 503 {
		t.Error("a closed console opens streams")
	}
}

// Every page asks for the events that its parts wait for, and for no others: so a list hears
// nothing of each of a thousand devices.
func TestEventsWanted(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	made, err := ops.Do(t.Context(), s.net.Service, ops.Root(), ops.CreateKey{Reusable: true, Tags: []string{"device"}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.net.Join(made.Token, "one", "linux/arm64")
	if err != nil {
		t.Fatal(err)
	}
	other := s.net.Add("two", "linux/arm64", "device")
	connect := regexp.MustCompile(`hx-sse:connect="([^"]*)"`)
	waits := regexp.MustCompile(`((?:devices|device-|key-)\S*) from:body`)
	for _, page := range []struct{ at, want string }{
		{"/devices", "devices"},
		{"/devices?q=nothing", "devices"},
		{"/activity", "devices"},
		{"/devices/" + d.ID.String(), "device-" + d.ID.String()},
		{"/devices/" + d.ID.String() + "/settings", "device-" + d.ID.String()},
		{"/network/keys/" + d.Show().KeyID + "/join", "key-" + d.Show().KeyID},
		{"/account", ""},
		{"/network", ""},
	} {
		t.Run(page.at, func(t *testing.T) {
			body := b.get(page.at).want(t, 200).body
			m := connect.FindStringSubmatch(body)
			if m == nil {
				t.Fatal("no stream")
			}
			at := html.UnescapeString(m[1])
			u, err := url.Parse(at)
			if err != nil || u.Path != "/events" || u.Query().Get("want") != page.want {
				t.Fatalf("stream %q, %v, want %q", at, err, page.want)
			}
			for _, w := range waits.FindAllStringSubmatch(body, -1) {
				if w[1] != page.want {
					t.Errorf("a part waits for %s", w[1])
				}
			}
			before := s.net.Followers()
			l := b.liveAt(at)
			if !u.Query().Has("since") {
				l.until(t, "resync")
			}
			other.Connect()
			other.Disconnect()
			d.Connect()
			d.Disconnect()
			if page.want == "" {
				if n := s.net.Followers(); n > before {
					t.Errorf("%d subscriptions for a page that nothing changes", n-before)
				}
			} else if seen := l.until(t, page.want); len(seen) != 1 {
				t.Errorf("got %v", seen)
			}
		})
	}
}

// A page that has just been drawn is not told to fetch what it shows, unless something
// happened meanwhile, or nobody knows.
func TestEventsSince(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	d := s.net.Add("one", "linux/arm64", "device")
	streamOf := func(b *browser) string {
		t.Helper()
		m := regexp.MustCompile(`hx-sse:connect="([^"]*)"`).FindStringSubmatch(b.get("/devices").want(t, 200).body)
		if m == nil {
			t.Fatal("no stream")
		}
		return html.UnescapeString(m[1])
	}
	// first is the first line of a stream.
	first := func(b *browser, at string) string {
		t.Helper()
		res := b.getAs(at, "identity")
		defer res.Body.Close()
		line, err := bufio.NewReader(res.Body).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(line)
	}
	at := streamOf(b)
	for range 2 { // a page that comes back has missed nothing either
		if line := first(b, at); line != "event: pulse" {
			t.Errorf("nothing happened: %q", line)
		}
	}
	l := b.liveAt(at)
	d.Connect()
	l.until(t, "devices")
	if line := first(b, at); line != "event: resync" {
		t.Errorf("a device came: %q", line)
	}
	at = streamOf(b)
	if line := first(b, at); line != "event: pulse" {
		t.Errorf("drawn after it came: %q", line)
	}
	s.net.Member("bob")
	if line := first(b, at); line != "event: resync" {
		t.Errorf("somebody has other rights: %q", line)
	}
	foreign := streamOf(newSite(t).browser().enter())
	for _, since := range []string{foreign[strings.Index(foreign, "since=")+6:], "", "0", "%00", strings.Repeat("f", 5000)} {
		if line := first(b, "/events?want=devices&since="+since); line != "event: resync" {
			t.Errorf("since %.40q: %q", since, line)
		}
	}
}

func TestEventsWantedAreBounded(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	for want, code := range map[string]int{
		"devices":                          200,
		"devices,devices,device-a":         200,
		"":                                 200,
		"resync":                           422,
		"devices,":                         422,
		"device-":                          422,
		"device-a%0Aevent:b":               422,
		"key-" + strings.Repeat("a", 65):   422,
		"key-" + strings.Repeat("a", 64):   200,
		strings.Repeat("devices,", 10_000): 422,
		"key-1,key-2,key-3,key-4,key-5,key-6,key-7,key-8":       200,
		"key-1,key-2,key-3,key-4,key-5,key-6,key-7,key-8,key-9": 422,
	} {
		if got := b.liveAt("/events?want=" + want).res.StatusCode; got != code {
			t.Errorf("%.80q: %d, want %d", want, got, code)
		}
	}
}

// TestListTick: however many lists are open, fewer than 20 a second are drawn at most until there
// are 100, and no page waits longer than 10 s.
func TestListTick(t *testing.T) {
	for _, tc := range []struct {
		lists int
		most  time.Duration
	}{
		{0, time.Second},
		{1, time.Second},
		{10, time.Second},
		{11, 1100 * time.Millisecond},
		{20, 2 * time.Second},
		{50, 5 * time.Second},
		{100, 10 * time.Second},
		{256, 10 * time.Second},
	} {
		if least, most := console.ListTick(tc.lists); least != time.Second || most != tc.most {
			t.Errorf("%d lists: %v to %v, want 1s to %v", tc.lists, least, most, tc.most)
		}
	}
}
