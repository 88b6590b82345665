package console

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"weft/coord/ops"
	"weft/overlay/cert"
)

// The live stream. It carries names of things that changed, no content:
//
//	resync        fetch what you show (sent first if anything may have changed since the page
//	              was drawn, and after a gap)
//	devices       some device changed
//	device-ID     this device changed
//	key-ID        a device that joined with this key changed, or files were fetched for the key
//	signed-out    the session ended; the stream ends too
//	pulse         every 3 s: a page that gets none for 10 s knows that what it shows is old
//
// A page says in the address which of devices, device-ID and key-ID it wants (?want=, names
// with commas between them); one that does not gets all. It also says as of when it was
// drawn (?since=, an ops.EventMark).
//
// htmx turns each into a DOM event that the parts of a page listen to
// (hx-trigger). Many changes at once become one event per name and tick.
const (
	shortTick      = 200 * time.Millisecond // of pages that show no list
	pulseEvery     = 3 * time.Second        // see silence in static/script/20-live.js
	maxPending     = 256                    // names; more become one resync
	maxWanted      = 8                      // names
	streamsPerUser = 32
)

// maxStreams bounds the live streams (open pages) of all users together.
const maxStreams = 256

// listTick is how long after one event a page that shows a list gets the next one, at the
// earliest and at the latest, while that many of them are open; the first after a quiet time
// is that much earlier. Each event has a list drawn anew: the more there are, the longer they
// wait, each another time, so that they do not all ask at once.
func listTick(lists int) (least, most time.Duration) {
	const short, long = time.Second, 10 * time.Second // short: see refresh in static/script/50-devices.js
	return short, min(max(short, time.Duration(lists)*100*time.Millisecond), long)
}

// wanted are the names that a page wants to hear; nil: all.
type wanted map[string]bool

func (w wanted) has(name string) bool { return w == nil || w[name] }

// nothing reports that the page shows nothing that changes.
func (w wanted) nothing() bool { return w != nil && len(w) == 0 }

// interest is that as the server has it.
func (w wanted) interest() (in ops.Interest) {
	in.Every = w.has("devices")
	for name := range w {
		if id, err := cert.ParseNodeID(strings.TrimPrefix(name, "device-")); err == nil {
			in.Devices = append(in.Devices, id)
		}
		if key, ok := strings.CutPrefix(name, "key-"); ok {
			in.Keys = append(in.Keys, key)
		}
	}
	return in
}

// wantedName is what may be asked for.
var wantedName = regexp.MustCompile(`^(devices|(device|key)-[0-9A-Za-z_-]{1,64})$`)

// wantedOf reads the address of a stream.
func wantedOf(q url.Values) (wanted, error) {
	if !q.Has("want") {
		return nil, nil
	}
	w := wanted{}
	if q.Get("want") == "" {
		return w, nil
	}
	for name := range strings.SplitSeq(q.Get("want"), ",") {
		if !wantedName.MatchString(name) {
			return nil, errWant
		}
		if w[name] = true; len(w) > maxWanted {
			return nil, errWant
		}
	}
	return w, nil
}

// eventsOf is the address of the stream of the page that shows data as of a mark: with the
// events that parts of it wait for (hx-trigger in its template). A page that waits for what
// the console itself sees (tell), which no mark stands for, has none.
func eventsOf(data any, mark string) string {
	name := ""
	switch p := data.(type) {
	case devicesView:
		name = "devices"
	case activityView:
		if p.Newer.Self != "" {
			name = "devices"
		}
	case devicePage:
		name = "device-" + p.Device.ID
	case joinView:
		if p.Live {
			return "/events?want=key-" + p.Key.ID
		}
	}
	return "/events?want=" + name + "&since=" + mark
}

// stream is one open page.
type stream struct {
	session [32]byte
	user    string
	want    wanted
	once    sync.Once
	done    chan struct{} // closed by end
	told    chan string   // names of what the console itself has seen; see tell
}

func (s *stream) end() { s.once.Do(func() { close(s.done) }) }

// openStream adds a stream if there is room.
func (c *Console) openStream(session [32]byte, user string, want wanted) (*stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.streams) >= maxStreams {
		return nil, errBusy
	}
	n := 0
	for s := range c.streams {
		if s.user == user {
			n++
		}
	}
	if n >= streamsPerUser {
		return nil, errBusy
	}
	s := &stream{session: session, user: user, want: want, done: make(chan struct{}), told: make(chan string, 16)}
	c.streams[s] = struct{}{}
	if want.has("devices") {
		c.lists++
	}
	return s, nil
}

func (c *Console) closeStream(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.streams, s)
	if s.want.has("devices") {
		c.lists--
	}
}

// tick is how long a stream waits after an event for the next one, at the earliest and at
// the latest.
func (c *Console) tick(s *stream) (least, most time.Duration) {
	if !s.want.has("devices") {
		return shortTick, shortTick
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return listTick(c.lists)
}

// tell sends a name to the open pages of a session. A page that has too many already gets it
// by looking again, which those that wait for something do.
func (c *Console) tell(session [32]byte, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.streams {
		if s.session == session && s.want.has(name) {
			select {
			case s.told <- name:
			default:
			}
		}
	}
}

// endStreams ends the streams whose session has just ended.
func (c *Console) endStreams(which func(*stream) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.streams {
		if which(s) {
			s.end()
		}
	}
}

// events serves one stream until the page goes, the session ends or the
// console closes.
func (c *Console) events(v *visit) error {
	if v.r.Method == http.MethodHead {
		return errMethod // or it would stay open with nobody reading
	}
	want, err := wantedOf(v.r.URL.Query())
	if err != nil {
		return err
	}
	s, err := c.openStream(v.session.Hash, v.actor.UserID, want)
	if err != nil {
		return err
	}
	defer c.closeStream(s)
	var changes <-chan ops.Event // none for a page that shows nothing that changes
	cancel := func() {}
	if !want.nothing() {
		if changes, cancel, err = c.ops.Subscribe(v.ctx(), v.actor, want.interest()); err != nil {
			return err
		}
	}
	defer func() { cancel() }()

	rc := http.NewResponseController(v.w)
	h := v.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx: do not hold it back
	send := func(text string) error {
		if _, err := io.WriteString(v.w, text); err != nil {
			return err
		}
		return rc.Flush()
	}
	first := "resync"
	if v.r.URL.Query().Get("since") == c.ops.EventMark() {
		first = "pulse" // nothing has happened
	}
	if send(sse(first)) != nil {
		return nil
	}

	pulse := time.NewTicker(pulseEvery)
	defer pulse.Stop()
	heartbeat := time.NewTicker(c.heartbeat)
	defer heartbeat.Stop()
	// tick runs while names are pending. The first change after a quiet time goes out at
	// once, unless so many lists are open that they would all be drawn at once.
	tick := time.NewTimer(time.Hour)
	tick.Stop()
	ticking := false
	var quiet time.Time // from when on it is
	pending := make(map[string]bool)
	add := func(names ...string) {
		for _, name := range names {
			if want.has(name) || name == "resync" {
				pending[name] = true
			}
		}
		if ticking || len(pending) == 0 {
			return
		}
		least, most := c.tick(s)
		ticking = true
		tick.Reset(max(0, time.Until(quiet)) + rand.N(most-least+1))
	}
	flush := func() error {
		text := ""
		if len(pending) > maxPending || pending["resync"] {
			text = sse("resync")
		} else {
			for name := range pending {
				text += sse(name)
			}
		}
		clear(pending)
		return send(text)
	}

	for {
		select {
		case <-v.ctx().Done():
			return nil
		case <-c.stopping: // the page comes back when the server does
			return nil
		case <-s.done:
			send(sse("signed-out"))
			return nil
		case e, ok := <-changes:
			if !ok { // we were too slow, or the person may see other devices from now on
				if changes, cancel, err = c.ops.Subscribe(v.ctx(), v.actor, want.interest()); err != nil {
					cancel = func() {}
					return nil // the page comes back
				}
				add("resync")
			} else if len(pending) <= maxPending {
				add("devices", "device-"+e.ID.String())
				if idPattern.MatchString(e.KeyID) {
					add("key-" + e.KeyID)
				}
			}
		case name := <-s.told:
			add(name)
		case <-tick.C:
			ticking = false
			least, _ := c.tick(s)
			quiet = time.Now().Add(least)
			if flush() != nil {
				return nil
			}
		case <-heartbeat.C:
			// Ended elsewhere (another server, the admin verbs), or idle.
			ss, _, err := c.ops.Session(v.ctx(), v.session.Hash)
			if errors.Is(err, ops.ErrNotFound) || err == nil && !c.live(ss, c.now()) {
				send(sse("signed-out"))
				return nil
			}
		case <-pulse.C:
			if send(sse("pulse")) != nil {
				return nil
			}
		}
	}
}

// sse is one event; name is ours.
func sse(name string) string { return fmt.Sprintf("event: %s\ndata: 1\n\n", name) }
