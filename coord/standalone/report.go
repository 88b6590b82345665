package standalone

import (
	"context"
	"errors"
	"math/rand/v2"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/relay/relayserver"
)

// presence records that a home connection began or ended, for the next report. Events of an
// older connection than the recorded one are ignored.
func (r *Relay) presence(e relayserver.Event) {
	r.mu.Lock()
	if old, ok := r.online[e.Node]; e.Online && (!ok || old.Conn < e.Conn) {
		r.online[e.Node] = e
	} else if ok && !e.Online && old.Conn == e.Conn {
		delete(r.online, e.Node)
	}
	if old, ok := r.pending[e.Node]; !ok || old.Conn <= e.Conn {
		r.pending[e.Node] = e
	}
	r.mu.Unlock()
	r.rouse()
}

func (r *Relay) rouse() {
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// sawInstance queues a report of all connected nodes if the server has another instance than
// before: a server keeps presence in memory, so one that has started anew knows none of them.
func (r *Relay) sawInstance(instance string) {
	r.mu.Lock()
	fresh := instance != r.instance
	if fresh {
		r.instance, r.owed = instance, instance
		for id, e := range r.online {
			if p, ok := r.pending[id]; !ok || p.Conn <= e.Conn && p.Online {
				r.pending[id] = e
			}
		}
	}
	r.mu.Unlock()
	if fresh {
		r.rouse()
	}
}

// reportLoop reports to the server which nodes connected and left, until ctx ends.
func (r *Relay) reportLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.news:
		}
		if !sleep(ctx, reportGather) {
			return
		}
		for {
			events, all := r.takePending()
			if len(events) == 0 && all == "" {
				break
			}
			if err := r.report(ctx, events, all); err != nil {
				r.putBack(events, all)
				if ctx.Err() != nil {
					return
				}
				r.log.Debug("report", "err", err)
				var e *api.Error
				if errors.As(err, &e) && refused(err) {
					break // syncLoop is refused too, and calls rouse when the server answers it again
				}
				if !sleep(ctx, retryMin+rand.N(retryMax)) {
					return
				}
			}
		}
	}
}

// takePending removes and returns the next events to report. If a report of all connected
// nodes is complete with them, all is the instance of the server that asked for it, else "".
func (r *Relay) takePending() (events []relayserver.Event, all string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	events = make([]relayserver.Event, 0, min(len(r.pending), api.MaxRelayEvents))
	for id, e := range r.pending {
		if len(events) == api.MaxRelayEvents {
			break
		}
		events = append(events, e)
		delete(r.pending, id)
	}
	if len(r.pending) == 0 {
		all, r.owed = r.owed, ""
	}
	return events, all
}

func (r *Relay) putBack(events []relayserver.Event, all string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if all == r.instance {
		r.owed = all
	}
	for _, e := range events {
		if now, ok := r.pending[e.Node]; !ok || now.Conn < e.Conn {
			r.pending[e.Node] = e
		}
	}
}

func (r *Relay) report(ctx context.Context, events []relayserver.Event, all string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req := api.RelayReport{Run: r.run, Events: []api.RelayEvent{}, All: all}
	for _, e := range events {
		out := api.RelayEvent{Node: e.Node.String(), Conn: e.Conn, Online: e.Online, At: e.At}
		if e.Addr.IsValid() {
			out.Addr = e.Addr.Addr().String()
		}
		req.Events = append(req.Events, out)
	}
	res, err := r.client.ReportRelay(ctx, req)
	if err != nil {
		return err
	}
	for _, s := range res.Unknown {
		if id, err := cert.ParseNodeID(s); err == nil {
			r.deny(id)
		}
	}
	r.sawInstance(res.Instance)
	return nil
}
