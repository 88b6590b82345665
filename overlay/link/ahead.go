package link

import (
	"context"
	"crypto/tls"
	"time"
)

// aheadFor is how long a link that was made ahead is used: the server closes one on which
// nothing is asked for 10 s.
const aheadFor = 5 * time.Second

// Ahead is a link that is made before it is needed, in a goroutine of its own, while its
// maker waits for something else, such as a disk. A Dialer owns it (Take).
type Ahead struct {
	// constant after ahead
	base   string
	to     want
	cancel context.CancelFunc
	done   chan struct{}

	// constant once done is closed
	tc   *tls.Conn
	err  error
	made time.Time
}

// DialAhead starts Dial to the server that is asked first. The next Dial to it returns that
// link.
func (d *Dialer) DialAhead() {
	if bases := d.ordered(); len(bases) > 0 {
		d.Take(d.ahead(bases[0], theAPI))
	}
}

// DialRelayAhead starts DialRelay, for a Dialer that takes the result and may be another
// one.
func (d *Dialer) DialRelayAhead(id, base string) *Ahead { return d.ahead(base, aRelay(id)) }

func (d *Dialer) ahead(base string, to want) *Ahead {
	ctx, cancel := context.WithCancel(context.Background())
	a := &Ahead{base: base, to: to, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.tc, a.err = d.make(ctx, base, to)
		a.made = time.Now()
	}()
	return a
}

// Take makes d return the link a where it would make the same one; nil is none. d must not
// have another one. A link that d has not returned is ended by Drop.
func (d *Dialer) Take(a *Ahead) { d.taken.Store(a) }

// Drop ends a link that was made ahead and not used, or the attempt to make it.
func (d *Dialer) Drop() {
	a := d.taken.Swap(nil)
	if a == nil {
		return
	}
	a.cancel()
	if <-a.done; a.err == nil {
		CloseNow(a.tc)
	}
}

// madeAhead returns the outcome of an earlier attempt to make this link, and waits for it
// if necessary. ok is false if there was none that can be used.
func (d *Dialer) madeAhead(ctx context.Context, base string, to want) (tc *tls.Conn, err error, ok bool) {
	a := d.taken.Load()
	if a == nil || a.base != base || a.to.proto != to.proto || a.to.id != to.id || !d.taken.CompareAndSwap(a, nil) {
		return nil, nil, false
	}
	stop := context.AfterFunc(ctx, a.cancel)
	<-a.done
	stop()
	a.cancel()
	if a.err == nil && time.Since(a.made) > aheadFor {
		CloseNow(a.tc)
		return nil, nil, false
	}
	return a.tc, a.err, true
}
