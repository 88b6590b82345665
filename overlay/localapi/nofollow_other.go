//go:build !unix

package localapi

// noFollow has no meaning here.
const noFollow = 0
