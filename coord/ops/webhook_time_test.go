package ops

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/coord/store"
	"weft/coord/webhook"
	"weft/overlay/cert"
)

// taken is what a receiver got.
type taken struct {
	webhook.Event
	at time.Time
}

// pipes are receivers behind pipes, for tests whose clock is not the machine's.
type pipes struct {
	mu     sync.Mutex // guards the following
	down   bool
	slow   time.Duration
	status int
	tried  []time.Time
	got    []taken
	wg     sync.WaitGroup
}

func (p *pipes) sender() webhook.Sender {
	return webhook.Sender{Dial: func(_ context.Context, to netip.AddrPort) (net.Conn, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.down {
			p.tried = append(p.tried, time.Now())
			return nil, errors.New("connection refused")
		}
		here, there := net.Pipe()
		p.wg.Go(func() { p.serve(there) })
		return here, nil
	}}
}

func (p *pipes) serve(c net.Conn) {
	defer c.Close()
	for r := bufio.NewReader(c); ; {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		b, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		p.mu.Lock()
		t := taken{at: time.Now()}
		err = json.Unmarshal(b, &t.Event)
		status, slow := max(p.status, 200), p.slow
		if p.tried = append(p.tried, t.at); err == nil && status == 200 {
			p.got = append(p.got, t)
		}
		p.mu.Unlock()
		time.Sleep(slow)
		if _, err := fmt.Fprintf(c, "HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n", status); err != nil {
			return
		}
	}
}

func (p *pipes) set(down bool, status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down, p.status = down, status
}

func (p *pipes) ops() (list []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.got {
		list = append(list, t.Op+" "+t.Target.Name)
	}
	return list
}

// running has the service do what it does by itself, until stop is called.
func (s *site) running() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	return func() { cancel(); wg.Wait() }
}

// hook makes a webhook, to the pipes if it has no other URL.
func (s *site) hook(c CreateWebhook) WebhookCreated {
	s.t.Helper()
	if c.URL == "" {
		c.URL = "http://127.0.0.1/"
	}
	c.Allow = []string{"127.0.0.1"}
	made, err := Do(s.t.Context(), s.Service, Root(), c)
	if err != nil {
		s.t.Fatal(err)
	}
	return made
}

func (s *site) hookNow(id string) Webhook {
	s.t.Helper()
	w, err := s.Webhook(s.t.Context(), Root(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return w
}

// inTime runs a test in time of its own, with a site whose webhooks go to p.
func inTime(t *testing.T, f func(t *testing.T, s *site, p *pipes)) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{}
		s := openSite(t, func(o *Options) { o.Now = time.Now })
		s.hooks.sender = p.sender()
		f(t, s, p)
		s.Close()
		p.wg.Wait()
	})
}

// A receiver that is away for most of a day gets everything once it is back, in order,
// after attempts that became rare.
func TestWebhookDown(t *testing.T) {
	inTime(t, func(t *testing.T, s *site, p *pipes) {
		defer s.running()()
		p.set(true, 0)
		w := s.hook(CreateWebhook{Events: []string{"key.create"}})
		began := time.Now()
		for i := range 100 {
			s.token(CreateKey{Note: fmt.Sprint("key-", i)})
			time.Sleep(10 * time.Minute)
		}
		now := s.hookNow(w.ID)
		if n := len(p.tried); n < 20 || n > 60 || now.Attempts != n || now.State != WebhookFailing || now.Failing.Sub(began).Abs() > time.Second || now.Next == nil || now.Delivered != 0 {
			t.Errorf("%d attempts: %+v", n, now)
		}
		if p.tried[0].Sub(began) != 0 || p.tried[1].Sub(began) > 10*time.Second {
			t.Errorf("the first attempts came after %s and %s", p.tried[0].Sub(began), p.tried[1].Sub(began))
		}
		for i := range len(p.tried) - 1 {
			if d := p.tried[i+1].Sub(p.tried[i]); d > webhook.MaxWait*5/4 {
				t.Errorf("%s between two attempts", d)
			}
		}
		if len(now.Recent) != hookRecent || now.Recent[0].Error != "dial 127.0.0.1: connection refused" || now.LastError != now.Recent[0].Error || now.Recent[0].Status != 0 {
			t.Errorf("the last attempts: %+v", now.Recent)
		}
		p.set(false, 0)
		time.Sleep(webhook.MaxWait * 5 / 4)
		got := p.ops()
		for i := range 100 {
			if len(got) != 100 || got[i] != fmt.Sprint("key.create key-", i) {
				t.Fatalf("got %q", got)
			}
		}
		if now := s.hookNow(w.ID); now.State != WebhookGood || now.Delivered != 100 || now.Attempts != 0 || now.Failing != nil || now.Next != nil || now.Last == nil {
			t.Errorf("afterwards: %+v", now)
		}
		tried := len(p.tried)
		time.Sleep(48 * time.Hour)
		if len(p.tried) != tried {
			t.Error("something is sent though nothing happens")
		}
	})
}

// One that stays away for longer is paused, which is recorded, and goes on from there
// when somebody wants it to. While it fails others are sent.
func TestWebhookPaused(t *testing.T) {
	inTime(t, func(t *testing.T, s *site, p *pipes) {
		pi := s.camera("pi")
		stop := s.running()
		w := s.hook(CreateWebhook{Events: []string{"device.rename"}})
		other := s.hook(CreateWebhook{Events: []string{"webhook.pause"}, Note: "other"})
		p.set(false, 503)
		rename := func(name string) {
			t.Helper()
			if _, err := s.RenameDevice(t.Context(), pi.id, name); err != nil {
				t.Fatal(err)
			}
		}
		rename("first")
		time.Sleep(webhook.GiveUp - time.Hour)
		// It is as it was after a restart, and no attempt is made earlier for it.
		before := s.hookNow(w.ID)
		stop()
		s.Close()
		s = openSite(t, func(o *Options) { o.Now, o.Data = time.Now, s.data })
		s.hooks.sender = p.sender()
		stop = s.running()
		time.Sleep(time.Second)
		if now := s.hookNow(w.ID); now.Attempts != before.Attempts || !now.Next.Equal(*before.Next) {
			t.Errorf("a restart: %+v, was %+v", now, before)
		}
		time.Sleep(3 * time.Hour)
		now := s.hookNow(w.ID)
		if now.State != WebhookPaused || now.Next != nil || now.Paused == nil || now.Paused.Sub(*now.Failing) < webhook.GiveUp || now.LastError != "it answered 503" {
			t.Fatalf("%+v", now)
		}
		records, _ := s.audited("webhook.pause", nil)
		if len(records) != 1 || records[0].ID != w.ID || records[0].Via != "system" || !strings.Contains(string(records[0].After), "it answered 503") {
			t.Errorf("records of the pause: %+v", records)
		}
		rename("second")
		tried := len(p.tried)
		p.set(false, 0)
		time.Sleep(2 * time.Hour)
		if got := p.ops(); !slices.Equal(got, []string{"webhook.pause http://127.0.0.1"}) {
			t.Errorf("while it is paused, after %d attempts: %q", tried, got)
		}
		if now := s.hookNow(other.ID); now.Delivered != 1 || now.State != WebhookGood {
			t.Errorf("the other: %+v", now)
		}
		yes := true
		if _, err := Do(t.Context(), s.Service, Root(), EditWebhook{ID: w.ID, Enabled: &yes}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := p.ops(); !slices.Equal(got[1:], []string{"device.rename first", "device.rename second"}) {
			t.Errorf("once it goes on: %q", got)
		}
		stop()
		s.Close()
	})
}

// A disabled one hears nothing of what happened meanwhile; one that was changed while it
// failed is tried at once.
func TestWebhookEdited(t *testing.T) {
	inTime(t, func(t *testing.T, s *site, p *pipes) {
		pi := s.camera("pi")
		defer s.running()()
		w := s.hook(CreateWebhook{Events: []string{"device.*"}})
		edit := func(e EditWebhook) {
			t.Helper()
			e.ID = w.ID
			if _, err := Do(t.Context(), s.Service, Root(), e); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		rename := func(name string) {
			t.Helper()
			if _, err := s.RenameDevice(t.Context(), pi.id, name); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		yes, no := true, false
		rename("one")
		edit(EditWebhook{Enabled: &no})
		if s.hookNow(w.ID).State != WebhookDisabled {
			t.Error("it is not disabled")
		}
		rename("two")
		edit(EditWebhook{Enabled: &yes})
		rename("three")
		edit(EditWebhook{Events: &[]string{"key.*"}})
		rename("four")
		time.Sleep(2 * upkeepEvery) // the cursor passes over it
		edit(EditWebhook{Events: &[]string{"device.*"}})
		rename("five")
		p.set(true, 0)
		rename("six")
		time.Sleep(3 * time.Hour)
		p.set(false, 0)
		note := "x"
		edit(EditWebhook{Note: &note})
		synctest.Wait()
		if got := p.ops(); !slices.Equal(got, []string{"device.rename one", "device.rename three", "device.rename five", "device.rename six"}) {
			t.Errorf("%q", got)
		}
	})
}

// More webhooks than may send at a time, all with much to send to slow receivers, take
// turns.
func TestWebhookTurns(t *testing.T) {
	inTime(t, func(t *testing.T, s *site, p *pipes) {
		p.slow = time.Second
		var hooks []WebhookCreated
		for range 2*maxSending + 1 {
			hooks = append(hooks, s.hook(CreateWebhook{Events: []string{"device.renew"}}))
		}
		s.note(slices.Repeat([]record{{op: "device.renew"}}, 200)...)
		defer s.running()()
		time.Sleep(3*hookTurn + 5*time.Second)
		for _, w := range hooks {
			if now := s.hookNow(w.ID); now.Delivered < 5 || now.Delivered > 30 {
				t.Errorf("%d events were sent to one", now.Delivered)
			}
		}
	})
}

// presenceSite is a site in time of its own whose devices are told of.
type presenceSite struct {
	*site
	p    *pipes
	conn uint64
}

func (s *presenceSite) set(online bool, nodes ...cert.NodeID) {
	for _, n := range nodes {
		s.conn++
		s.Presence(n, s.conn, online, time.Now(), netip.MustParseAddr("192.0.2.7"))
	}
}

// away ends a device's connection to this process's relay.
func (s *presenceSite) away(nodes ...cert.NodeID) { s.set(false, nodes...) }

// told are the presence events since the last call.
func (s *presenceSite) told() []string {
	synctest.Wait()
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	var list []string
	for _, t := range s.p.got {
		list = append(list, t.Op+" "+t.Target.Name)
	}
	s.p.got = nil
	return list
}

// Who comes and goes is told once it is so for a moment; who flaps is not. After a start
// nothing is told of those who come back, and who went away meanwhile is told of once
// everybody had the time to be back.
func TestWebhookPresence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := t.TempDir()
		p := &pipes{}
		open := func() (*presenceSite, func()) {
			s := &presenceSite{site: openSite(t, func(o *Options) { o.Now, o.Data = time.Now, data }), p: p}
			s.hooks.sender = p.sender()
			return s, s.running()
		}
		s, stop := open()
		a, b, c, flaps := s.camera("a").id, s.camera("b").id, s.camera("c").id, s.camera("flaps").id
		s.set(true, a)
		time.Sleep(time.Minute)
		w := s.hook(CreateWebhook{Events: []string{"presence.*"}, Tags: []string{"device"}})
		s.hook(CreateWebhook{Events: []string{"presence.*"}, Tags: []string{"other"}})
		time.Sleep(time.Minute)
		want := func(what string, events ...string) {
			t.Helper()
			if got := s.told(); !slices.Equal(got, events) {
				t.Errorf("%s: %q, want %q", what, got, events)
			}
		}
		want("who was online before")
		s.set(true, b)
		at := time.Now()
		time.Sleep(presenceHold - time.Second)
		want("too soon")
		time.Sleep(3 * time.Second)
		s.p.mu.Lock()
		if len(p.got) != 1 || p.got[0].At != at.UTC().Format("2006-01-02T15:04:05.000Z07:00") || p.got[0].Actor.Via != "system" || string(p.got[0].After) != `{"online":true}` {
			t.Errorf("%+v", p.got)
		}
		s.p.mu.Unlock()
		want("b came", "presence.online b")
		for range 50 {
			s.set(true, flaps)
			time.Sleep(2 * time.Second)
			s.away(flaps)
			time.Sleep(2 * time.Second)
		}
		time.Sleep(time.Minute)
		want("flaps")
		s.away(a)
		time.Sleep(time.Minute)
		want("a went", "presence.offline a")
		s.set(true, c)
		time.Sleep(time.Minute)
		want("c came", "presence.online c")

		// The relay starts anew: all are away and come back, but one.
		s.set(true, flaps)
		time.Sleep(time.Minute)
		want("flaps is there at last", "presence.online flaps")
		for _, node := range s.presence.Lose(s.auth.RelayID(), time.Now()) {
			s.notePresence(node)
		}
		time.Sleep(comesBack / 2)
		s.set(true, b, c)
		time.Sleep(time.Second)
		want("they may all come back")
		time.Sleep(comesBack)
		want("flaps did not", "presence.offline flaps")

		// b and c are online; after the start b is back, c is not, a came.
		stop()
		s.Close()
		s, stop = open()
		s.set(true, b)
		time.Sleep(time.Second)
		s.set(true, a)
		time.Sleep(presenceHold + time.Second)
		want("after the start", "presence.online a")
		time.Sleep(comesBack - 2*presenceHold)
		want("c may come back yet")
		time.Sleep(2 * presenceHold)
		want("c did not", "presence.offline c")

		// While it is disabled nothing is told, nor afterwards of what happened then.
		no, yes := false, true
		if _, err := Do(t.Context(), s.Service, Root(), EditWebhook{ID: w.ID, Enabled: &no}); err != nil {
			t.Fatal(err)
		}
		for _, v := range s.all() {
			if v.ID != w.ID {
				if _, err := Do(t.Context(), s.Service, Root(), DeleteWebhook{v.ID}); err != nil {
					t.Fatal(err)
				}
			}
		}
		synctest.Wait()
		if known, events, told := s.rows(); known || events != 0 || told != 0 {
			t.Errorf("rows are left that nobody wants: %v, %d, %d", known, events, told)
		}
		s.away(b)
		s.set(true, c)
		time.Sleep(time.Minute)
		if _, err := Do(t.Context(), s.Service, Root(), EditWebhook{ID: w.ID, Enabled: &yes}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		want("while it was disabled")
		s.away(c)
		time.Sleep(time.Minute)
		want("once it is enabled", "presence.offline c")
		if _, err := s.DeleteDevice(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		want("a was deleted")
		stop()
		s.Close()
		p.wg.Wait()
	})
}

func (s *site) all() []Webhook {
	s.t.Helper()
	list, err := s.Webhooks(s.t.Context(), Root())
	if err != nil {
		s.t.Fatal(err)
	}
	return list
}

// rows is what there is in the database about presence.
func (s *site) rows() (known bool, events, told int) {
	s.t.Helper()
	err := s.store.Read(s.t.Context(), func(r *store.Reader) (err error) {
		if known, err = r.PresenceKnown(s.network); err != nil {
			return err
		}
		list, _, err := r.PresenceEvents(s.network, 0, 1<<20)
		if err != nil {
			return err
		}
		nodes, err := r.ToldOnline(s.network)
		events, told = len(list), len(nodes)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return known, events, told
}
