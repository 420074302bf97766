package export

import (
	"bufio"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/parquet-go/parquet-go"
)

// Format is how an export's files are written.
type Format string

// The formats.
const (
	Parquet Format = "parquet"
	NDJSON  Format = "ndjson"
	CSV     Format = "csv"
)

// rowGroup is how many rows a Parquet row group holds, and so what is held in memory.
const rowGroup = 20_000

// encoder writes rows.
type encoder interface {
	write(*Row) error
	close() error // without the writer beneath
}

func newEncoder(f Format, w io.Writer) (encoder, error) {
	switch f {
	case Parquet:
		return &parquetEncoder{w: parquet.NewGenericWriter[Row](w, parquet.MaxRowsPerRowGroup(rowGroup), parquet.CreatedBy("dispatch-ledger", "1", ""))}, nil
	case NDJSON:
		return &ndjsonEncoder{bufio.NewWriterSize(w, 1<<20)}, nil
	case CSV:
		e := &csvEncoder{w: csv.NewWriter(bufio.NewWriterSize(w, 1<<20))}
		return e, e.w.Write(columns)
	}
	return nil, fmt.Errorf("format %q; it is parquet, ndjson or csv", f)
}

type parquetEncoder struct {
	w   *parquet.GenericWriter[Row]
	row [1]Row
}

func (p *parquetEncoder) write(r *Row) error {
	p.row[0] = *r
	_, err := p.w.Write(p.row[:])
	return err
}

func (p *parquetEncoder) close() error { return p.w.Close() }

type ndjsonEncoder struct{ b *bufio.Writer }

// write puts data into the line itself: an encoder would rewrite its white space, and the row would not hash to its leaf.
func (n *ndjsonEncoder) write(r *Row) error {
	if strings.ContainsAny(r.Data, "\r\n") {
		return fmt.Errorf("the data of event %d is on several lines, which a line of NDJSON cannot keep byte for byte; export to parquet", r.Position)
	}
	text, err := json.Marshal(line{Envelope: *r.envelope(), Sealed: r.Sealed, SealedSHA256: r.SealedSHA256, Leaf: r.Leaf})
	if err != nil {
		return err
	}
	n.b.Write(text[:len(text)-1]) //nolint:errcheck // the last one says what any of them met
	n.b.WriteString(`,"data":`)   //nolint:errcheck // the same
	n.b.WriteString(r.Data)       //nolint:errcheck // the same
	_, err = n.b.WriteString("}\n")
	return err
}

func (n *ndjsonEncoder) close() error { return n.b.Flush() }

// columns are those of the CSV, in order; the names are the same in every format.
var columns = []string{
	"position", "id", "type", "stream", "version", "subject", "channel", "purpose", "state", "target", "delivery_id", "occurred_at", "recorded_at",
	"actor", "source", "correlation_id", "causation_id", "data", "sealed", "sealed_sha256", "leaf",
}

type csvEncoder struct{ w *csv.Writer }

func (c *csvEncoder) write(r *Row) error {
	if strings.Contains(r.Data, "\r") {
		return fmt.Errorf("the data of event %d has a carriage return, which a cell of CSV cannot keep byte for byte; export to parquet", r.Position)
	}
	e := r.envelope()
	return c.w.Write([]string{
		strconv.FormatInt(r.Position, 10), uuid.UUID(r.ID).String(), harmless(r.Type), harmless(r.Stream), strconv.FormatInt(r.Version, 10), idText(r.Subject),
		harmless(r.Channel), harmless(r.Purpose), harmless(r.State), harmless(r.Target), idText(r.DeliveryID), timeText(e.OccurredAt), timeText(e.RecordedAt),
		harmless(r.Actor), harmless(r.Source), idText(r.CorrelationID), idText(r.CausationID), harmless(r.Data),
		base64.StdEncoding.EncodeToString(r.Sealed), base64.StdEncoding.EncodeToString(r.SealedSHA256), base64.StdEncoding.EncodeToString(r.Leaf),
	})
}

func (c *csvEncoder) close() error {
	c.w.Flush()
	return c.w.Error()
}

func idText(id uuid.UUID) string {
	if id == uuid.Nil {
		return ""
	}
	return id.String()
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000Z")
}

// harmless keeps a spreadsheet from taking text for a formula: what could be one, and what begins as if it had been made harmless
// already, has an apostrophe before it.
func harmless(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r'", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}
