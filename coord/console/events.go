package console

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"weft/coord/ops"
)

// The live stream. It carries names of things that changed, no content:
//
//	resync        fetch what you show (sent first, and after a gap)
//	devices       some device changed
//	device-ID     this device changed
//	key-ID        a device that joined with this key changed, or files were fetched for the key
//	signed-out    the session ended; the stream ends too
//	pulse         every 3 s: a page that gets none for 10 s knows that what it shows is old
//
// htmx turns each into a DOM event that the parts of a page listen to
// (hx-trigger). Many changes at once become one event per name and tick.
const (
	eventTick      = 200 * time.Millisecond
	pulseEvery     = 3 * time.Second // see silence in static/script/20-live.js
	maxPending     = 256             // names; more become one resync
	streamsPerUser = 32
)

// maxStreams bounds the live streams (open pages) of all users together.
const maxStreams = 256

// stream is one open page.
type stream struct {
	session [32]byte
	user    string
	once    sync.Once
	done    chan struct{} // closed by end
	told    chan string   // names of what the console itself has seen; see tell
}

func (s *stream) end() { s.once.Do(func() { close(s.done) }) }

// openStream adds a stream if there is room.
func (c *Console) openStream(session [32]byte, user string) (*stream, error) {
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
	s := &stream{session: session, user: user, done: make(chan struct{}), told: make(chan string, 16)}
	c.streams[s] = struct{}{}
	return s, nil
}

func (c *Console) closeStream(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.streams, s)
}

// tell sends a name to the open pages of a session. A page that has too many already gets it
// by looking again, which those that wait for something do.
func (c *Console) tell(session [32]byte, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.streams {
		if s.session == session {
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
	s, err := c.openStream(v.session.Hash, v.actor.UserID)
	if err != nil {
		return err
	}
	defer c.closeStream(s)
	changes, cancel := c.ops.Subscribe(v.actor)
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
	if send(sse("resync")) != nil {
		return nil
	}

	pulse := time.NewTicker(pulseEvery)
	defer pulse.Stop()
	heartbeat := time.NewTicker(c.heartbeat)
	defer heartbeat.Stop()
	// tick runs while names may be pending; the first change after a quiet
	// time goes out at once.
	tick := time.NewTimer(eventTick)
	tick.Stop()
	ticking := false
	pending := make(map[string]bool)
	flush := func() error {
		if len(pending) == 0 {
			return nil
		}
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
			if !ok { // we were too slow
				cancel()
				changes, cancel = c.ops.Subscribe(v.actor)
				pending["resync"] = true
			} else if len(pending) <= maxPending {
				pending["devices"] = true
				pending["device-"+e.Device.ID.String()] = true
				if idPattern.MatchString(e.Device.KeyID) {
					pending["key-"+e.Device.KeyID] = true
				}
			}
			if !ticking {
				if ok && flush() != nil {
					return nil
				}
				ticking = true
				tick.Reset(eventTick)
			}
		case name := <-s.told:
			pending[name] = true
			if !ticking {
				if flush() != nil {
					return nil
				}
				ticking = true
				tick.Reset(eventTick)
			}
		case <-tick.C:
			if ticking = len(pending) > 0; ticking {
				tick.Reset(eventTick)
			}
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
