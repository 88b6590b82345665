//go:build !unix

package netstack

func limitToFiles(max int) int { return max }
