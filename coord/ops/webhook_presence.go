package ops

import (
	"context"
	"slices"
	"time"

	"weft/coord/store"
	"weft/coord/webhook"
	"weft/overlay/cert"
)

// Which devices are online is known in memory only, and not at the start of the server. The
// database stores for each device what webhooks were told last. So a device that was online
// before and after a restart causes no event, and one that went offline in between causes one as
// soon as that is known.

const (
	// presenceHold is how long a device has to stay online or offline before webhooks are told,
	// so that a device that goes back and forth causes no events while it does.
	presenceHold = 5 * time.Second
	presenceTick = time.Second // how often devices are checked that have not stayed so long yet
	presencePart = 500         // devices in one write
)

// presenceTold is the state of runWebhooks about presence events.
type presenceTold struct {
	begun bool // resumePresence has been done
	known bool // the database has what webhooks were told last
}

// moved is called when a device has gone online or offline.
func (h *hooks) moved(node cert.NodeID, now time.Time) {
	if !h.coming.Load() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.shifted) == 0 {
		h.rouse() // so that runWebhooks checks shifted every presenceTick
	}
	h.shifted[node] = now.Add(presenceHold)
}

// tellPresence stores events for devices that went online or offline. It returns when
// it has to be called again, the zero time if only after the next change.
func (s *Service) tellPresence(ctx context.Context, told *presenceTold) (next time.Time) {
	h, now := s.hooks, s.now()
	if !told.begun {
		if err := s.resumePresence(told); err != nil {
			s.log.Error("read which devices were online", "err", err)
			return now.Add(hookUnread)
		}
	}
	settled := s.started.Add(comesBack)
	if s.created {
		settled = s.started
	}
	var err error
	switch {
	case !h.coming.Load() && !told.known:
		return time.Time{}
	case !h.coming.Load():
		if told.known, err = s.endPresence(ctx); err == nil && !told.known {
			h.mu.Lock()
			clear(h.shifted)
			h.mu.Unlock()
			return time.Time{}
		}
	case !told.known && now.Before(settled):
		return settled
	case !told.known:
		if err = s.beginPresence(ctx); err == nil {
			told.known = true
		}
	}
	if err == nil {
		err = s.tellShifted(ctx, now)
	}
	if err != nil {
		if ctx.Err() == nil {
			s.log.Error("store which devices came and went", "err", err)
		}
		return now.Add(hookUnread)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.shifted) > 0 {
		return now.Add(presenceTick)
	}
	return time.Time{}
}

// resumePresence reads what webhooks were told before the start. Devices that were online then
// are checked when all devices have had the time to come back.
func (s *Service) resumePresence(told *presenceTold) error {
	return s.store.Read(context.Background(), func(r *store.Reader) error {
		known, err := r.PresenceKnown(s.network)
		if err != nil {
			return err
		}
		nodes, err := r.ToldOnline(s.network)
		if err != nil {
			return err
		}
		h := s.hooks
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, node := range nodes {
			if _, ok := h.shifted[node]; !ok {
				h.shifted[node] = s.started.Add(comesBack)
			}
		}
		told.begun, told.known = true, known
		return nil
	})
}

// beginPresence stores the devices that are online now as if webhooks had been told, so that only
// later changes cause events.
func (s *Service) beginPresence(ctx context.Context) error {
	first := true
	for online := s.presence.Connected(); ; first = false {
		part := online[:min(len(online), presencePart)]
		online = online[len(part):]
		err := s.store.Write(ctx, func(tx *store.Tx) error {
			if first { // remove what a failed attempt has left
				if err := tx.ForgetPresence(s.network); err != nil {
					return err
				}
			}
			for _, node := range part {
				if _, ok := s.index.has(node); !ok {
					continue
				}
				if err := tx.SetToldOnline(s.network, node, true); err != nil {
					return err
				}
			}
			if len(online) == 0 {
				return tx.SetPresenceKnown(s.network)
			}
			return nil
		})
		if err != nil || len(online) == 0 {
			return err
		}
	}
}

// endPresence deletes what webhooks were told, unless a webhook wants presence events again by
// now: then it returns true.
func (s *Service) endPresence(ctx context.Context) (wanted bool, err error) {
	wanted = true
	err = s.store.Write(ctx, func(tx *store.Tx) error {
		hooks, err := tx.Webhooks(s.network)
		if err != nil || slices.ContainsFunc(hooks, wantsPresence) {
			return err
		}
		if err := tx.ForgetPresence(s.network); err != nil {
			return err
		}
		tx.After(func() { wanted = false })
		return nil
	})
	return wanted, err
}

// tellShifted checks the devices in shifted whose time has come, and stores events for them.
func (s *Service) tellShifted(ctx context.Context, now time.Time) error {
	h := s.hooks
	for ctx.Err() == nil {
		due := map[cert.NodeID]time.Time{}
		h.mu.Lock()
		for node, at := range h.shifted {
			if !now.Before(at) && len(due) < presencePart {
				due[node] = at
			}
		}
		h.mu.Unlock()
		if len(due) == 0 {
			return nil
		}
		later, events, err := s.judgeShifted(due, now)
		if err == nil && len(events) > 0 {
			err = s.store.Write(ctx, func(tx *store.Tx) error { return s.addPresence(tx, events) })
		}
		if err != nil {
			return err
		}
		h.mu.Lock()
		for node, at := range due {
			switch again, wait := later[node]; {
			case !h.shifted[node].Equal(at): // the device has gone online or offline meanwhile
			case wait:
				h.shifted[node] = again
			default:
				delete(h.shifted, node)
			}
		}
		h.mu.Unlock()
	}
	return ctx.Err()
}

// judgeShifted returns events for the devices whose state differs from what webhooks were told,
// and the times at which other devices have to be checked again.
func (s *Service) judgeShifted(due map[cert.NodeID]time.Time, now time.Time) (later map[cert.NodeID]time.Time, events []store.PresenceEvent, err error) {
	later = map[cert.NodeID]time.Time{}
	err = s.store.Read(context.Background(), func(r *store.Reader) error {
		for node := range due {
			told, err := r.IsToldOnline(s.network, node)
			if err != nil {
				return err
			}
			st, heard := s.presence.Get(node)
			e := store.PresenceEvent{ID: "p" + newID(), At: now, Node: node, Online: st.Online}
			if heard {
				e.At = st.Since
			}
			switch {
			case st.Online == told:
			case !st.Online && s.unsure(node):
				later[node] = now.Add(presenceTick)
			case heard && now.Sub(st.Since) < presenceHold && now.After(st.Since):
				later[node] = st.Since.Add(presenceHold)
			default:
				events = append(events, e)
			}
		}
		return nil
	})
	return later, events, err
}

// addPresence stores the events of devices that still exist.
func (s *Service) addPresence(tx *store.Tx, events []store.PresenceEvent) error {
	var there []store.PresenceEvent
	for _, e := range events {
		node, err := tx.Node(s.network, e.Node)
		if isNotFound(err) {
			continue // deleted meanwhile, which is an event of its own
		}
		if err != nil {
			return err
		}
		e.Name, e.Tags = node.Name, node.Tags
		there = append(there, e)
	}
	tx.After(func() { s.hooks.rouseFor([]string{webhook.PresenceOnline, webhook.PresenceOffline}) })
	return tx.AddPresence(s.network, there)
}
