package osdns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Times and bounds of the owner goroutine.
const (
	// settles is how long a change must be over before the next round: changes come in
	// bursts.
	settles = 200 * time.Millisecond
	// retryFirst and retryMost bound the delay before a failed round is repeated.
	retryFirst = time.Second
	retryMost  = time.Minute
	// If another program overwrites our settings more than trampleMost times within
	// trampleWindow, they are left alone until the window is over.
	trampleMost   = 8
	trampleWindow = time.Minute
	// patience is how many rounds a service may be away before it counts as gone.
	patience = 3
	// callTime bounds one round, and each attempt to restore.
	callTime = 10 * time.Second
)

// owner is the state of the owner goroutine.
type owner struct {
	m        *Manager
	mode     Mode
	backend  backend
	reason   string
	current  Config // what the backend has set, if isSet
	isSet    bool
	applied  []string // description of current
	retry    time.Duration
	warned   string      // the current warning
	tramples []time.Time // within the window
	total    int
	misses   int // rounds in a row in which systemd-resolved was away
	emptied  int // rounds in a row without a base resolver
}

// ownLoop is the only goroutine that touches the system.
func (m *Manager) ownLoop(ctx context.Context) {
	defer close(m.done)
	o := &owner{m: m}
	stop := m.sys.watch(m.tell)
	defer stop()
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		var seen [events]bool
		select {
		case <-ctx.Done():
			o.end()
			return
		case <-m.wake:
		case <-timer.C:
		case e := <-m.events:
			seen[e] = true
			// Drain the rest of the burst.
			select {
			case <-ctx.Done():
			case <-time.After(settles):
			}
			for len(m.events) > 0 {
				seen[<-m.events] = true
			}
		}
		timer.Stop()
		if ctx.Err() != nil {
			continue
		}
		if again := o.round(ctx, seen); again > 0 {
			timer.Reset(again)
		}
	}
}

// round applies the desired state. It returns the time until the next round, 0 to wait
// for an event.
func (o *owner) round(parent context.Context, seen [events]bool) (again time.Duration) {
	ctx, cancel := context.WithTimeout(parent, callTime)
	defer cancel()
	m := o.m
	m.mu.Lock()
	want, asked := m.desired, m.set
	m.mu.Unlock()
	if !asked {
		return 0
	}
	if want.IsZero() {
		err := o.drop(ctx)
		o.publish(nil, nil, err)
		return o.backoff(err)
	}
	if err := m.opt.Prepare(); err != nil {
		// A resolver that does not answer is worse than none.
		err = errors.Join(err, o.drop(ctx))
		o.publish(nil, nil, err)
		return o.backoff(err)
	}
	if o.isSet && !seen[eventRestart] && o.current.equal(want) {
		stands, err := o.backend.intact(ctx)
		if stands {
			if seen[eventFlush] {
				o.backend.flush(ctx)
			}
			return o.refresh(ctx)
		}
		if err == nil && o.trampled() {
			o.publish([]string{}, nil, fmt.Errorf("another program keeps overwriting the DNS settings (%d times in %v), so weft stopped setting them; stop that program, or run weft with --os-dns=off", trampleMost, trampleWindow))
			return trampleWindow
		}
		m.log.Info("the system's DNS settings were overwritten", "mode", o.mode, "err", err)
	}
	if err := o.apply(ctx, want); err != nil {
		o.isSet = false
		o.publish(nil, nil, err)
		return o.backoff(err)
	}
	return o.refresh(ctx)
}

// apply chooses the backend again and sets want.
func (o *owner) apply(ctx context.Context, want Config) error {
	mode, reason, err := o.m.sys.decide(ctx)
	if err != nil {
		return err
	}
	if o.mode == ModeResolved && mode != ModeResolved {
		// It, or D-Bus, may be restarting: do not write files for a pause of seconds.
		if o.misses++; o.misses <= patience {
			return errors.New("systemd-resolved does not answer")
		}
	}
	o.misses = 0
	for {
		if o.backend != nil && mode != o.mode {
			o.m.log.Info("another program manages DNS now", "was", o.mode, "is", mode)
			if err := o.drop(ctx); err != nil {
				return err
			}
		}
		if o.backend == nil {
			b, err := o.m.sys.backend(mode, o.m.opt.Interface)
			if err != nil {
				return err
			}
			o.backend, o.mode = b, mode
		}
		o.reason = reason
		applied, err := o.backend.set(ctx, want)
		var no *useDirectError
		if errors.As(err, &no) && mode != ModeDirect {
			mode, reason = ModeDirect, no.Error()
			continue
		}
		if err != nil {
			return err
		}
		o.isSet, o.current, o.applied = true, want, applied
		o.m.log.Info("the system's DNS is set", "mode", mode, "why", reason)
		return nil
	}
}

// useDirectError is the error of a backend that cannot work here: then the file itself
// is written.
type useDirectError struct{ why string }

func (e *useDirectError) Error() string { return e.why }

// trampled counts an overwrite and reports whether there were too many.
func (o *owner) trampled() bool {
	now := time.Now()
	o.total++
	o.tramples = append(slices.DeleteFunc(o.tramples, func(t time.Time) bool { return now.Sub(t) > trampleWindow }), now)
	if len(o.tramples) > trampleMost {
		o.tramples = o.tramples[1:]
		return true
	}
	return false
}

// refresh reads the base resolvers again.
func (o *owner) refresh(ctx context.Context) time.Duration {
	base, err := o.backend.base(ctx)
	o.publish(o.applied, base, err)
	if err != nil {
		o.isSet = false // a service that does not answer may have lost the settings, too
		return o.backoff(err)
	}
	o.retry = 0
	return o.whenEmpty(base)
}

// whenEmpty schedules some checks while there is no base resolver: a network that has
// just come up has none for a moment.
func (o *owner) whenEmpty(base []netip.AddrPort) time.Duration {
	if len(base) > 0 {
		o.emptied = 0
		return 0
	}
	if o.emptied++; o.emptied > 5 {
		return 0
	}
	return time.Second << (o.emptied - 1)
}

func (o *owner) backoff(err error) time.Duration {
	if err == nil {
		o.retry = 0
		return 0
	}
	o.retry = min(max(2*o.retry, retryFirst), retryMost)
	return o.retry
}

// publish sets the Status and the health warning after a round.
func (o *owner) publish(applied []string, base []netip.AddrPort, err error) {
	m := o.m
	m.mu.Lock()
	m.status.Mode, m.status.Reason = cmp.Or(o.mode, ModeOff), o.reason
	if o.backend == nil && m.desired.IsZero() {
		m.status.Mode, m.status.Reason = ModeOff, "nothing to set"
	}
	m.status.Applied, m.status.Err, m.status.Tramples = applied, err, o.total
	changed := !slices.Equal(m.status.Base, base) && base != nil
	if base != nil || len(applied) == 0 {
		m.status.Base = base
	}
	m.mu.Unlock()
	text := ""
	if err != nil {
		text = oneLine(err.Error())
	}
	if text != o.warned { // only once
		if text != "" {
			m.log.Warn("the system's DNS", "mode", o.mode, "err", text)
		}
		m.opt.Warn(warnCode, text)
		o.warned = text
	}
	if changed {
		m.opt.BaseChanged()
	}
}

// drop undoes what the backend set and closes it.
func (o *owner) drop(ctx context.Context) error {
	if o.backend == nil {
		return nil
	}
	if err := o.backend.unset(ctx); err != nil {
		return fmt.Errorf("restore the system's DNS: %w", err)
	}
	o.backend.close()
	o.backend, o.mode, o.reason, o.isSet, o.current = nil, "", "", false, Config{}
	o.applied = nil
	return nil
}

// end is the last round. It has a context of its own, since the Manager's is done.
func (o *owner) end() {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	err := o.drop(ctx)
	if o.backend != nil {
		o.backend.close()
	}
	if err == nil {
		o.m.mu.Lock()
		o.m.status = Status{Mode: ModeOff, Reason: "closed"}
		o.m.mu.Unlock()
		return
	}
	o.publish(nil, nil, err)
}
