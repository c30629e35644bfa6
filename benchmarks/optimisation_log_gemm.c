/* c[m][n] += a[m][k] b[k][n], float, row-major, one thread: the micro-kernel that OPT-007 is about.

   As BLIS does it (Van Zee and van de Geijn 2015): columns of b are packed into panels of NR, which
   stay in cache while MR rows of a run over them; MR x NR sums stay in registers. Vectors are
   those of GCC and clang, so the same source is AVX2, AVX-512 or NEON.
   m has to be a multiple of MR and n of NR, as every product of the model's is. */

#if defined(__AVX512F__)
#define LANES 16
#define MR 8
#elif defined(__AVX2__)
#define LANES 8
#define MR 4
#else
#define LANES 4
#define MR 4
#endif
#define VECTORS 2
#define NR (VECTORS * LANES)
#define KC 256 /* rows of a panel: KC * NR * 4 bytes stay in the first-level cache */

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

int rows_at_once(void) { return MR; }
int columns_at_once(void) { return NR; }

static void micro_kernel(int depth, const float *a, int lda, const float *panel, float *c, int ldc)
{
    vector sum[MR][VECTORS];
    for (int i = 0; i < MR; i++)
        for (int j = 0; j < VECTORS; j++)
            sum[i][j] = *(const vector *)(c + i * ldc + j * LANES);
    for (int k = 0; k < depth; k++) {
        vector b[VECTORS];
        for (int j = 0; j < VECTORS; j++)
            b[j] = *(const vector *)(panel + k * NR + j * LANES);
        for (int i = 0; i < MR; i++)
            for (int j = 0; j < VECTORS; j++)
                sum[i][j] += a[i * lda + k] * b[j];
    }
    for (int i = 0; i < MR; i++)
        for (int j = 0; j < VECTORS; j++)
            *(vector *)(c + i * ldc + j * LANES) = sum[i][j];
}

void gemm(int m, int n, int depth, const float *a, const float *b, float *c)
{
    float panel[KC * NR] __attribute__((aligned(64)));
    for (int start = 0; start < depth; start += KC) {
        int some = depth - start < KC ? depth - start : KC;
        for (int column = 0; column < n; column += NR) {
            for (int k = 0; k < some; k++)
                for (int j = 0; j < NR; j++)
                    panel[k * NR + j] = b[(start + k) * n + column + j];
            for (int row = 0; row < m; row += MR)
                micro_kernel(some, a + row * depth + start, depth, panel,
                             c + row * n + column, n);
        }
    }
}
