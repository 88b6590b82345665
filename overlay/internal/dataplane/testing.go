package dataplane

// Freeze takes all locks of this package, for tests that the packet path needs none.
func (f *Forwarder) Freeze() (thaw func()) {
	f.mu.Lock()
	f.hold.mu.Lock()
	return func() {
		f.hold.mu.Unlock()
		f.mu.Unlock()
	}
}

// Addrs returns how many addresses are in the table, for tests that none remains.
func (f *Forwarder) Addrs() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.byIP)
}
