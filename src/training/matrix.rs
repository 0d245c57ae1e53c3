//! Linear algebra for training. Loops run in a fixed order, so that training gives the same bits on every machine.

/// A matrix of 64-bit floats, stored row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    pub fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, values: vec![0.0; rows * columns] }
    }

    /// # Panics
    /// When the rows differ in length.
    pub fn from_rows<R: AsRef<[f64]>>(rows: &[R]) -> Self {
        let columns = rows.first().map_or(0, |row| row.as_ref().len());
        let mut values = Vec::with_capacity(rows.len() * columns);
        for row in rows {
            assert_eq!(row.as_ref().len(), columns, "rows have equal length");
            values.extend_from_slice(row.as_ref());
        }
        Self { rows: rows.len(), columns, values }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.columns..(i + 1) * self.columns]
    }

    pub fn row_mut(&mut self, i: usize) -> &mut [f64] {
        &mut self.values[i * self.columns..(i + 1) * self.columns]
    }

    /// The product of `self` and the column vector `x`.
    pub fn times(&self, x: &[f64]) -> Vec<f64> {
        (0..self.rows).map(|i| dot(self.row(i), x)).collect()
    }
}

/// The dot product. Four independent sums allow vector instructions; the compiler may not reorder floats itself.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, a_rest) = a.as_chunks::<4>();
    let (b, b_rest) = b.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..4 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}

/// [`dot`] in 32 bits, in twice as many sums.
pub fn dot_narrow(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// [`add_scaled`] in 32 bits.
pub fn add_scaled_narrow(y: &mut [f32], factor: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

/// y += factor x.
pub fn add_scaled(y: &mut [f64], factor: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

/// Makes the rows orthonormal (Gram and Schmidt, two passes per row). A row that depends on earlier rows becomes zero.
pub fn orthonormalise(rows: &mut Matrix) {
    for i in 0..rows.rows {
        let (before, rest) = rows.values.split_at_mut(i * rows.columns);
        let row = &mut rest[..rows.columns];
        let length = dot(row, row).sqrt();
        for _ in 0..2 {
            for earlier in before.chunks(rows.columns) {
                let along = dot(earlier, row);
                add_scaled(row, -along, earlier);
            }
        }
        let left = dot(row, row).sqrt();
        let scale = if left > 1e-10 * length { 1.0 / left } else { 0.0 };
        row.iter_mut().for_each(|value| *value *= scale);
    }
}

/// Eigenvalues, largest first, and eigenvectors, one per row, of a symmetric matrix (Jacobi rotations).
pub fn eigen(symmetric: &Matrix) -> (Vec<f64>, Matrix) {
    const SWEEPS: usize = 60;
    let n = symmetric.rows;
    let mut a = symmetric.clone();
    let mut vectors = Matrix::zeros(n, n);
    (0..n).for_each(|i| vectors.row_mut(i)[i] = 1.0);
    let size = dot(&a.values, &a.values).sqrt();
    for _ in 0..SWEEPS {
        let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a.row(i)[j].powi(2)).sum();
        if off.sqrt() <= 1e-13 * size {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut vectors, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a.row(j)[j].total_cmp(&a.row(i)[i]));
    let sorted = Matrix::from_rows(&order.iter().map(|&i| vectors.row(i)).collect::<Vec<_>>());
    (order.iter().map(|&i| a.row(i)[i]).collect(), sorted)
}

/// Rotates the plane of p and q so that `a[p][q]` becomes zero.
fn rotate(a: &mut Matrix, vectors: &mut Matrix, p: usize, q: usize) {
    let apq = a.row(p)[q];
    if apq == 0.0 {
        return;
    }
    let theta = (a.row(q)[q] - a.row(p)[p]) / (2.0 * apq);
    let tangent = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let cosine = 1.0 / tangent.hypot(1.0);
    let sine = tangent * cosine;
    let rotated = |x: f64, y: f64| (cosine * x - sine * y, sine * x + cosine * y);
    for k in 0..a.rows {
        let row = a.row_mut(k);
        (row[p], row[q]) = rotated(row[p], row[q]);
    }
    for matrix in [a, vectors] {
        for k in 0..matrix.columns {
            let (x, y) = rotated(matrix.row(p)[k], matrix.row(q)[k]);
            matrix.row_mut(p)[k] = x;
            matrix.row_mut(q)[k] = y;
        }
    }
}

/// Solves A x = b for a symmetric, positive definite A (Cholesky). `None` when A is not positive definite.
pub fn solve(a: &Matrix, b: &[f64]) -> Option<Vec<f64>> {
    let n = a.rows;
    let mut lower = Matrix::zeros(n, n);
    for i in 0..n {
        for j in 0..=i {
            let rest = a.row(i)[j] - dot(&lower.row(i)[..j], &lower.row(j)[..j]);
            let value = if i == j { rest.sqrt() } else { rest / lower.row(j)[j] };
            if !value.is_finite() || (i == j && value <= 0.0) {
                return None;
            }
            lower.row_mut(i)[j] = value;
        }
    }
    let mut x = b.to_vec();
    for i in 0..n {
        x[i] = (x[i] - dot(&lower.row(i)[..i], &x[..i])) / lower.row(i)[i];
    }
    for i in (0..n).rev() {
        let above: f64 = (i + 1..n).map(|k| lower.row(k)[i] * x[k]).sum();
        x[i] = (x[i] - above) / lower.row(i)[i];
    }
    Some(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: &[f64], b: &[f64]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9)
    }

    #[test]
    fn a_matrix_scales_its_eigenvectors() {
        let a = Matrix::from_rows(&[[4., 1., 0.], [1., 3., -1.], [0., -1., 2.]]);
        let (values, vectors) = eigen(&a);
        assert!(values.windows(2).all(|pair| pair[0] >= pair[1]), "{values:?}");
        for (i, &value) in values.iter().enumerate() {
            let expected: Vec<f64> = vectors.row(i).iter().map(|x| value * x).collect();
            assert!(near(&a.times(vectors.row(i)), &expected), "{value}");
        }
    }

    #[test]
    fn solve_satisfies_the_equation() {
        let a = Matrix::from_rows(&[[4., 1., 0.], [1., 3., -1.], [0., -1., 2.]]);
        let x = solve(&a, &[1., 2., 3.]).unwrap();
        assert!(near(&a.times(&x), &[1., 2., 3.]));
        assert_eq!(solve(&Matrix::from_rows(&[[1., 2.], [2., 1.]]), &[1., 1.]), None);
    }

    #[test]
    fn orthonormalised_rows_are_orthonormal() {
        let mut rows = Matrix::from_rows(&[[1., 2., 3.], [2., 4., 6.], [0., 1., 0.]]);
        orthonormalise(&mut rows);
        let products: Vec<f64> = (0..3).flat_map(|i| rows.times(rows.row(i))).collect();
        assert!(near(&products, &[1., 0., 0., 0., 0., 0., 0., 0., 1.]), "{products:?}");
    }
}
