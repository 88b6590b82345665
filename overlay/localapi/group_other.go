//go:build !unix

package localapi

import "io/fs"

func groupOf(fs.FileInfo) (string, bool) { return "", false }
