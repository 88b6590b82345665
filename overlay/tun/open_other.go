//go:build !linux

package tun

func open(Config) (device, link, error) { return nil, nil, ErrUnsupported }
