package twig

import "slices"

// filterSort is PHP's asort, or uasort with an arrow function.
func filterSort(r *run, a []Value) Value {
	list := r.sequence(a[0], "sort")
	by := func(x, y Value) int { return min(r.compare(x, y), 1) }
	if arrow := opt(a, 1, nil); arrow != nil {
		by = func(x, y Value) int { return r.userCompare(arrow, x, y) }
	}
	order := make([]int, list.Len())
	for i := range order {
		order[i] = i
	}
	sortAsPHP(order, func(i, j int) int {
		if c := by(list.vals[i], list.vals[j]); c != 0 {
			return c
		}
		return i - j
	})
	result := r.array(list.Len())
	for _, i := range order {
		result.set(list.key(i), list.vals[i])
	}
	return result
}

// userCompare asks an arrow function. One that answers with a boolean, as (a, b) => a > b, is asked both ways round.
func (r *run) userCompare(arrow, x, y Value) int {
	v := r.invoke(arrow, x, y)
	if v == false {
		return -sign(toInt(r.invoke(arrow, y, x)))
	}
	return sign(toInt(v))
}

func sign(i int64) int { return int(min(max(i, -1), 1)) }

// smallSort is up to how many elements PHP sorts by insertion.
const smallSort = 16

// sortAsPHP sorts, and asks for the same comparisons as PHP where the list is short: with values that compare in
// circles, such as 10, "9a" and "x", the order depends on them.
func sortAsPHP(order []int, compare func(i, j int) int) {
	n := len(order)
	if n > smallSort {
		slices.SortStableFunc(order, compare)
		return
	}
	after := func(i, j int) bool { return compare(order[i], order[j]) > 0 }
	swap := func(i, j int) { order[i], order[j] = order[j], order[i] }
	from := 1 // what stands before it is in order
	if n >= 3 && n <= 5 {
		switch {
		case !after(0, 1):
			if after(1, 2) {
				swap(1, 2)
				if after(0, 1) {
					swap(0, 1)
				}
			}
		case !after(2, 1):
			swap(0, 2)
		default:
			swap(0, 1)
			if after(1, 2) {
				swap(1, 2)
			}
		}
		from = 3
	}
	for i := from; i < n; i++ {
		j := i // where it belongs
		switch {
		case !after(i-1, i):
		case i < 6:
			for j = i - 1; j > 0 && after(j-1, i); j-- {
			}
		default:
			j = placeByTwos(i, after)
		}
		moved := order[i]
		copy(order[j+1:i+1], order[j:i])
		order[j] = moved
	}
}

// placeByTwos finds the place of the i-th element among those before it, the last of which comes after it, two at a time.
func placeByTwos(i int, after func(i, j int) bool) int {
	for j := i - 1; ; {
		j -= 2
		switch {
		case !after(j, i) && !after(j+1, i):
			return j + 2
		case !after(j, i):
			return j + 1
		case j == 0:
			return 0
		case j == 1 && after(i, 0):
			return 1
		case j == 1:
			return 0
		}
	}
}
