package schema

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
)

// Anchor remembers the last checkpoint where the database cannot reach it, so that a database that was set back is
// noticed. What an anchor forgets, nobody notices: keep it apart from the database and its backups.
type Anchor interface {
	// Last returns the newest checkpoint of a log that was kept, or nil before the first.
	Last(ctx context.Context, origin string) ([]byte, error)
	// Keep stores a checkpoint durably. It is never given an older one than it holds.
	Keep(ctx context.Context, origin string, signed []byte) error
	// String says where, for people.
	String() string
}

// FileAnchor keeps the checkpoint in a file, replaced as a whole and synced.
type FileAnchor struct {
	Path string // its folder is made if it is missing
}

// String is the path.
func (a FileAnchor) String() string { return a.Path }

// Last reads the file.
func (a FileAnchor) Last(_ context.Context, _ string) ([]byte, error) {
	signed, err := os.ReadFile(a.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return signed, err
}

// Keep writes a new file beside the old one, syncs it and renames it over the old one, so that a crash leaves one or the
// other whole.
func (a FileAnchor) Keep(_ context.Context, _ string, signed []byte) (err error) {
	if old, err := os.ReadFile(a.Path); err == nil && bytes.Equal(old, signed) {
		return nil
	}
	dir := filepath.Dir(a.Path)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // a checkpoint is public, and so is the folder that holds it
		return err
	}
	f, err := os.CreateTemp(dir, filepath.Base(a.Path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(signed)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), a.Path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// HTTPAnchor keeps the checkpoint at a URL that answers GET with what was last PUT: an object store, or an auditor's
// own server.
type HTTPAnchor struct {
	URL    string
	Header http.Header  // sent with each request, such as Authorization
	Client *http.Client // nil is http.DefaultClient; give one with a timeout
}

// String is the URL, without a password that stands in it.
func (a HTTPAnchor) String() string {
	u, err := url.Parse(a.URL)
	if err != nil {
		return "a URL that does not parse"
	}
	return u.Redacted()
}

// Last gets the checkpoint; 404 is none.
func (a HTTPAnchor) Last(ctx context.Context, _ string) ([]byte, error) {
	status, body, err := a.do(ctx, http.MethodGet, nil)
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusNotFound:
		return nil, nil
	case status != http.StatusOK:
		return nil, fmt.Errorf("GET answered %d", status)
	}
	return body, nil
}

// Keep puts the checkpoint.
func (a HTTPAnchor) Keep(ctx context.Context, _ string, signed []byte) error {
	status, _, err := a.do(ctx, http.MethodPut, signed)
	if err == nil && status/100 != 2 {
		err = fmt.Errorf("PUT answered %d", status)
	}
	return err
}

func (a HTTPAnchor) do(ctx context.Context, method string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.URL, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	for k, v := range a.Header {
		req.Header[k] = v
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	return send(a.Client, req)
}

// maxNote bounds what a server outside may answer: a checkpoint with many cosignatures.
const maxNote = 256 << 10

// send makes a request and reads the answer, which is small.
func send(client *http.Client, req *http.Request) (status int, body []byte, err error) {
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxNote))
	return resp.StatusCode, body, err
}
