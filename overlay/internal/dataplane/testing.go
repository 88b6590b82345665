package dataplane

// Freeze takes the locks of this package, for tests to show that the packet path
// needs none of them.
func (f *Forwarder) Freeze() (thaw func()) {
	f.mu.Lock()
	f.hold.mu.Lock()
	return func() {
		f.hold.mu.Unlock()
		f.mu.Unlock()
	}
}

// Addrs returns how many addresses lead to peers, for tests to see that none is
// left behind.
func (f *Forwarder) Addrs() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.byIP)
}
