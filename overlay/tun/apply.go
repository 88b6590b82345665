package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"weft/overlay/status"
)

// SetRanges sets the network's address ranges, which are routed to the interface. It
// takes the full desired state and may be repeated. A range that an overlay must not
// use, such as public addresses, is an error; the zero Prefix means none. It implements
// overlay.Net.
func (n *Net) SetRanges(v4, v6 netip.Prefix) error {
	v4, v6 = v4.Masked(), v6.Masked()
	if err := errors.Join(checkRange(v4, true), checkRange(v6, false)); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return os.ErrClosed
	}
	n.want.net4, n.want.net6 = v4, v6
	if !n.set {
		return nil // SetAddrs will follow
	}
	return n.applyLocked()
}

// SetAddrs sets the interface's addresses and sets it up. It takes the full desired
// state and may be repeated. A zero Addr means no address of that family.
func (n *Net) SetAddrs(v4, v6 netip.Addr) error {
	v4, v6 = v4.Unmap(), v6.WithZone("")
	if v4.IsValid() && !v4.Is4() {
		return fmt.Errorf("%s is not an IPv4 address", v4)
	}
	if v6.IsValid() && (!v6.Is6() || v6.Is4In6()) {
		return fmt.Errorf("%s is not an IPv6 address", v6)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return os.ErrClosed
	}
	n.want.v4, n.want.v6, n.set = v4, v6, true
	n.addrs.Store(addrsOf(v4, v6))
	if err := n.applyLocked(); err != nil {
		return fmt.Errorf("configure %s: %w", n.cfg.Name, err)
	}
	n.mapLocked()
	return nil
}

// restore applies the desired state again after a change.
func (n *Net) restore() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || !n.set {
		return
	}
	if err := n.applyLocked(); errors.Is(err, errGone) {
		n.lost(err)
	} else if err != nil {
		n.warnLocked(map[status.Code]string{status.CodeTun: fmt.Sprintf("%s cannot be configured: %v", n.cfg.Name, err)})
	}
}

func (n *Net) applyLocked() error {
	r, err := n.link.apply(n.want)
	if err == nil {
		n.warnLocked(r.warnings(n.cfg.Name, n.want))
	}
	return err
}

// warnLocked reports changes of the warnings.
func (n *Net) warnLocked(now map[status.Code]string) {
	for code := range n.warned {
		if _, still := now[code]; !still {
			delete(n.warned, code)
			if n.cfg.Clear != nil {
				n.cfg.Clear(code)
			}
		}
	}
	for code, msg := range now {
		if n.warned[code] == msg {
			continue
		}
		n.warned[code] = msg
		n.log.Warn(msg)
		if n.cfg.Warn != nil {
			n.cfg.Warn(code, msg)
		}
	}
}
