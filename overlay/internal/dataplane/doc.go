// Package dataplane is what lies between the host's network and WireGuard.
package dataplane
